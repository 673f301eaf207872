"""`longpo recipes`: lists the shipped recipes and copies them."""

import argparse
from pathlib import Path

from lf_longpo.errors import UserError


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    recipes = subparsers.add_parser(
        "recipes",
        help="list the shipped recipes, or copy some to edit them",
        description="Lists the shipped recipes. Every command that takes a recipe or a configuration also takes the "
        "name of a shipped one: longpo generate smollm2_longmab.",
    )
    recipes.set_defaults(run=run, words=None)
    copy = recipes.add_subparsers(metavar="ACTION").add_parser(
        "copy",
        help="copy recipes with the files that they need",
        description="Copies recipes into DIR/yaml, with the DeepSpeed files and data set entries that they name. Files "
        "that exist are kept. Run the recipes from DIR.",
        usage="longpo recipes copy NAME... [DIR]",
    )
    copy.add_argument(
        "words",
        nargs="+",
        metavar="NAME... [DIR]",
        help="shipped recipes, then the folder to copy into: an existing folder, or a path with a slash (default: .)",
    )


def run(options: argparse.Namespace) -> int:
    """Lists the recipes, or copies those that were named."""
    if options.words is None:
        _print_list()
        return 0
    from lf_longpo.config.shipped import shipped_recipes
    from lf_longpo.plugin.recipe_copies import copy_recipes

    *names, last = options.words
    folder = Path(last)
    if last in shipped_recipes() or not ("/" in last or folder.is_dir()):
        names, folder = options.words, Path()
    if not names:
        raise UserError(f"name a recipe to copy into {folder}; `longpo recipes` lists them")
    for copied in copy_recipes(names, folder):
        print(folder / copied.name, "" if copied.new else "(exists, kept)")
    return 0


def _print_list() -> None:
    from lf_longpo.config.shipped import shipped_recipes, summary

    recipes = shipped_recipes()
    width = max(map(len, recipes))
    for name, path in recipes.items():
        print(f"{name:{width}}  {summary(path)}")
