"""`longpo init`: the recipes of a method for a model."""

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Adds the command with its arguments."""
    parser = subparsers.add_parser(
        "init",
        help="write the recipes of a method for your model into this folder",
        description="Writes commented YAML recipes to generate pairs, train, export, serve and evaluate, for any model "
        "that LLaMA-Factory has a template for. Existing files are not changed.",
    )
    parser.add_argument("--model", required=True, help="name on the Hugging Face hub, or a folder")
    parser.add_argument("--method", required=True, choices=["longmab", "longreward"], help="how pairs are made")
    parser.add_argument("--template", help="LLaMA-Factory's chat template (that of the model in LLaMA-Factory's table)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the recipes and prints the command of each."""
    import sys
    from contextlib import redirect_stdout

    from lf_longpo.plugin.recipe_set import write_recipes

    with redirect_stdout(sys.stderr):  # libraries print while they are imported
        written = write_recipes(options.model, options.method, options.template, Path())
    print(f"Wrote {len(written)} recipes. Set `input` in {written[0].path}, and then run:")
    for recipe in written:
        print(f"  {recipe.launch}")
    return 0
