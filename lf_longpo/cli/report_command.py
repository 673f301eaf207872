"""`longpo report`: the page about a generation."""

import argparse
from pathlib import Path

from lf_longpo.cli.arguments import Subparsers, add_command
from lf_longpo.errors import UserError


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "report",
        run,
        help="write the HTML report of a generation",
        description="Writes report.html into the folder of a run: what happened and what to do, rewards, arms, pairs, "
        "failures and cost. `longpo generate` writes it when it ends; use this command while a run is in progress. "
        "With two runs, writes comparison.html into the folder of the second run.",
    )
    parser.add_argument("run_dir", type=Path, help="output_dir of a generation")
    parser.add_argument("second", type=Path, nargs="?", help="output_dir of another generation, to compare both")
    parser.add_argument(
        "--training",
        type=Path,
        metavar="DIR",
        help="output_dir of a training on the pairs: adds its loss and rewards (default: that of a recipe in yaml/ for "
        "the data set)",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="output_dir of the evaluations before and after the training: adds the scores",
    )


def run(options: argparse.Namespace) -> int:
    from lf_longpo.report.comparison import write_comparison
    from lf_longpo.report.page import write_report

    if options.second is None:
        print(write_report(options.run_dir, options.training, options.scores and tuple(options.scores)))
        return 0
    if options.training or options.scores:
        raise UserError("--training and --scores belong to the report of one run; name one run")
    print(write_comparison(options.run_dir, options.second))
    return 0
