"""`longpo evaluate compare`: the differences between two evaluations."""

import argparse
from pathlib import Path

from lf_longpo.cli.arguments import Subparsers, add_command


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "compare",
        run,
        help="differences between two evaluations",
        description="Compares two evaluations question by question: the mean of the differences and its 95% interval.",
    )
    parser.add_argument("first", type=Path, help="output_dir of an evaluation, such as that of the untrained model")
    parser.add_argument("second", type=Path, help="output_dir of another evaluation of the same questions")


def run(options: argparse.Namespace) -> int:
    from lf_longpo.cli.evaluation_output import print_comparison
    from lf_longpo.evaluation.compare import compare

    print_comparison(compare(options.first, options.second))
    return 0
