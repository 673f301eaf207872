"""The computed part of the build, see pyproject.toml for the rest: a wheel gets copies of the recipes."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RECIPES = ("yaml/*.yaml", "yaml/*/*.json", "dataset_info/dataset_info.json")


class BuildWithRecipes(build_py):
    """Copies the repository's recipes into the package, where `lf_longpo.config.shipped` finds them.

    An editable installation needs no copies: it finds the repository's folders.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source in (path for pattern in RECIPES for path in sorted(Path().glob(pattern))):
                target = Path(self.build_lib, "lf_longpo/recipes_data", source)
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(source), str(target))


setup(cmdclass={"build_py": BuildWithRecipes})
