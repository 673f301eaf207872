"""`longpo train`: a LLaMA-Factory recipe with less memory and time."""

import argparse

from lf_longpo.cli.arguments import Subparsers, add_command, add_recipe, add_run


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "train",
        run,
        help="train a LLaMA-Factory recipe with less memory and time",
        description="Trains a LLaMA-Factory DPO or SFT recipe with the same loss. A recipe that cannot be sped up "
        "trains as in plain LLaMA-Factory. Reads the environment variables of llamafactory-cli train "
        "(NPROC_PER_NODE, NNODES, ...).",
    )
    add_run(parser)
    add_recipe(parser)
    parser.add_argument("--stock", action="store_true", help="train with plain LLaMA-Factory")
    parser.add_argument(
        "--verbose", action="store_true", help="print LLaMA-Factory's log, which is also in OUTPUT_DIR/train.log"
    )


def run(options: argparse.Namespace) -> int:
    from lf_longpo.cli.settings_files import refuse_other_files

    refuse_other_files("longpo train", options.recipe)
    from lf_longpo.plugin.train.launch import train
    from lf_longpo.plugin.train.options import TrainOptions

    return train(options.recipe, options.overrides, TrainOptions(), options.stock, options.verbose)
