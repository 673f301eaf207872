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
    parser.add_argument(
        "--sequence-parallel",
        type=_processes,
        default=1,
        metavar="P",
        help="split each row over P processes, for rows that do not fit one device: a divisor of the number of "
        "processes, or auto for the least P that fits by the estimate of longpo check (default: 1)",
    )
    parser.add_argument("--stock", action="store_true", help="train with plain LLaMA-Factory")
    parser.add_argument(
        "--verbose", action="store_true", help="print LLaMA-Factory's log, which is also in OUTPUT_DIR/train.log"
    )


def run(options: argparse.Namespace) -> int:
    from lf_longpo.cli.settings_files import refuse_other_files

    refuse_other_files("longpo train", options.recipe)
    from lf_longpo.plugin.train.launch import train
    from lf_longpo.plugin.train.options import TrainOptions

    wanted = TrainOptions(sequence_parallel=options.sequence_parallel)
    return train(options.recipe, options.overrides, wanted, options.stock, options.verbose)


def _processes(text: str) -> int:
    """The value of --sequence-parallel; 0 for auto, see `TrainOptions`."""
    if text == "auto":
        return 0
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is neither auto nor a number of processes, such as 2")
