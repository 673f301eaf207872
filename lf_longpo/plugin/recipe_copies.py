"""Copies of shipped recipes, with the files that they name."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.config.loading import read_settings
from lf_longpo.config.shipped import schema_of, shipped_folder, shipped_recipes
from lf_longpo.errors import UserError
from lf_longpo.files.journal import check_folder, write_whole
from lf_longpo.models.embedded import is_embedded, link_model
from lf_longpo.plugin.registry import DATASET_INFO, load_dataset_info, register_dataset


class Copied(NamedTuple):
    """A file, data set entry or link that a recipe needs.

    Attributes:
        name: the path below the target folder; for an entry, the file and the entry's name.
        new: False where it was there already and was kept.
    """

    name: str
    new: bool


def copy_recipes(names: Sequence[str], folder: Path) -> Iterator[Copied]:
    """Copies shipped recipes into `folder`, in the layout of the repository, so that their relative paths stay valid.

    Next to each recipe come its schema for editors, the DeepSpeed file and the data set entries that it names, and a
    link to the embedded model where it trains that. Files and entries that exist are kept.

    Raises:
        UserError: a recipe is not shipped or `folder` cannot be written (nothing is copied), `dataset_info.json` in
            `folder` is broken, or the embedded model is not installed.
    """
    shipped = shipped_recipes()
    for name in names:
        if name not in shipped:
            near = difflib.get_close_matches(name, shipped, n=1)
            hint = f"did you mean {near[0]}?" if near else "run `longpo recipes` for a list."
            raise UserError(f"no shipped recipe {name!r}; {hint} A folder to copy into has a slash: {name}/")
    check_folder(folder, "the folder")
    recipes = {name: read_settings(shipped[name]) for name in names}
    for name, recipe in recipes.items():
        yield _copy(Path("yaml", f"{name}.yaml"), folder)
        if schema := schema_of(shipped[name]):
            yield _copy("yaml" / schema, folder)
        if isinstance(deepspeed := recipe.get("deepspeed"), str):
            yield _copy(Path(deepspeed), folder)
        yield from _entries(recipe, folder)
    for recipe in recipes.values():
        yield from _embedded_model(recipe, folder)


def _copy(path: Path, folder: Path) -> Copied:
    target = folder / path
    new = not target.exists()
    if new:
        write_whole(target, [(shipped_folder() / path).read_text(encoding="utf-8")])
    return Copied(str(path), new)


def _entries(recipe: dict[str, Any], folder: Path) -> Iterator[Copied]:
    """The entries of a training recipe's data sets; a data set that `longpo generate` registers has none yet."""
    shipped = load_dataset_info(shipped_folder() / "dataset_info")
    for dataset in str(recipe.get("dataset", "")).split(","):
        if (name := dataset.strip()) in shipped:
            target = Path(recipe["dataset_dir"])
            new = name not in load_dataset_info(folder / target)
            if new:
                register_dataset(folder / target, name, shipped[name])
            yield Copied(f"{target / DATASET_INFO}: {name}", new)


def _embedded_model(recipe: dict[str, Any], folder: Path) -> Iterator[Copied]:
    model = Path(recipe.get("model_name_or_path", ""))
    if is_embedded(model.name):
        new = not (folder / model).exists()
        if new:
            link_model(model.name, folder / model)
        yield Copied(str(model), new)
