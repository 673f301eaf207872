"""`longpo report`: the page about a generation."""

import argparse
from pathlib import Path

from lf_longpo.cli.arguments import Subparsers, add_command


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "report",
        run,
        help="write the HTML report of a generation",
        description="Writes report.html into the folder of a run: rewards, arms, pairs, failures and cost. `longpo "
        "generate` writes it when it ends; use this command while a run is in progress.",
    )
    parser.add_argument("run_dir", type=Path, help="output_dir of a generation")


def run(options: argparse.Namespace) -> int:
    from lf_longpo.report.page import write_report

    print(write_report(options.run_dir))
    return 0
