"""The recipes that come with the package, found by name.

A checkout holds them in `yaml/` and `dataset_info/` at its root; a wheel holds copies of both folders (`setup.py` makes
them).
"""

import re
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
# In a wheel; setup.py writes the folder.
_COPIES = _PACKAGE / "recipes_data"


def shipped_folder() -> Path:
    """The folder that holds the shipped `yaml/` and `dataset_info/`."""
    return _COPIES if _COPIES.is_dir() else _PACKAGE.parent


def shipped_recipes() -> dict[str, Path]:
    """The files of all shipped recipes by name (`smollm2_dpo`), in alphabetical order."""
    return {path.stem: path for path in sorted((shipped_folder() / "yaml").glob("*.yaml"))}


def schema_of(recipe: Path) -> Path | None:
    """The schema that editors use for a recipe, relative to its folder; None if its first line names none."""
    with recipe.open(encoding="utf-8") as file:
        named = re.match(r"# yaml-language-server: \$schema=(\S+)$", file.readline())
    return Path(named[1]) if named else None


def summary(recipe: Path) -> str:
    """What a shipped recipe is for: its first line with `###`, without the label ("What it makes:")."""
    with recipe.open(encoding="utf-8") as file:
        header = next((line for line in file if line.startswith("###")), "")
    return re.sub(r"^### *(What it \w+: *)?", "", header).strip()


def shown(path: Path) -> str:
    """How a command names a recipe: a shipped one by its name, any other by its path."""
    return path.stem if shipped_recipes().get(path.stem) == path else str(path)


def resolve(path_or_name: str | Path) -> Path:
    """The file that a command was given, or the shipped file of that name where no such file exists.

    `smollm2_dpo`, `yaml/smollm2_dpo.yaml` and `yaml/deepspeed/ds_z2.json` name shipped files in any working directory.
    A name that is neither a file nor shipped is returned as it is, so that the reader of the file reports it.
    """
    path = Path(path_or_name)
    if path.is_file():
        return path
    if len(path.parts) == 1 and path.name in shipped_recipes():
        return shipped_recipes()[path.name]
    shipped = shipped_folder() / path
    return shipped if path.parts[:1] == ("yaml",) and shipped.is_file() else path
