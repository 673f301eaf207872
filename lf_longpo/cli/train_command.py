"""`longpo train`: a LLaMA-Factory recipe with less memory and time."""

import argparse

from lf_longpo.cli.arguments import (
    Subparsers,
    add_command,
    add_recipe,
    add_run,
    number_above_0,
    parallel_processes,
    whole_number_above_0,
)


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "train",
        run,
        help="train a LLaMA-Factory recipe with less memory and time",
        description="Trains a LLaMA-Factory DPO or SFT recipe with the same loss. A recipe that cannot be sped up "
        "trains as in plain LLaMA-Factory. Reads the environment variables of llamafactory-cli train "
        "(NPROC_PER_NODE, NNODES, ...). Pairs with the same prompt are computed in one row, which has the prompt once.",
    )
    add_run(parser)
    add_recipe(parser)
    parser.add_argument(
        "--sequence-parallel",
        type=parallel_processes,
        default=1,
        metavar="P",
        help="split each row over P processes, for rows that do not fit one device: a divisor of the number of "
        "processes, or auto for the least P that fits by the estimate of longpo check (default: 1)",
    )
    parser.add_argument("--stock", action="store_true", help="train with plain LLaMA-Factory")
    parser.add_argument(
        "--verbose", action="store_true", help="print LLaMA-Factory's log, which is also in OUTPUT_DIR/train.log"
    )
    _add_pair_options(parser)


def _add_pair_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the losses of pairs and for several pairs of a prompt."""
    parser.add_argument(
        "--pair-weight", choices=["gap"], help="weight the loss of each pair by its reward gap; the mean weight is 1"
    )
    parser.add_argument(
        "--pair-margin",
        type=number_above_0,
        default=0.0,
        metavar="SCALE",
        help="require a margin of SCALE times the reward gap of each pair (ODPO, arXiv 2402.10571)",
    )
    parser.add_argument(
        "--pref-loss",
        choices=["listwise"],
        help="compare all responses of a prompt by their rewards (Plackett-Luce) instead of pairs",
    )
    parser.add_argument(
        "--max-row-tokens",
        type=whole_number_above_0,
        metavar="N",
        help="divide the responses of a prompt into rows of at most N tokens; each row has the prompt again",
    )


def run(options: argparse.Namespace) -> int:
    from lf_longpo.cli.settings_files import refuse_other_files

    refuse_other_files("longpo train", options.recipe)
    from lf_longpo.plugin.train.launch import train
    from lf_longpo.plugin.train.options import TrainOptions

    beyond = TrainOptions(
        sequence_parallel=options.sequence_parallel,
        pair_weight=options.pair_weight,
        pair_margin=options.pair_margin,
        pref_loss=options.pref_loss,
        max_row_tokens=options.max_row_tokens,
    )
    return train(options.recipe, options.overrides, beyond, options.stock, options.verbose)
