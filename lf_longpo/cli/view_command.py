"""`longpo view`: a local page to inspect and review pairs."""

import argparse

from lf_longpo.cli.arguments import Subparsers, add_command, add_pairs


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "view",
        run,
        help="inspect and review pairs in a browser",
        description="Opens a page on this machine to search, filter and sort pairs, to see the evidence of each "
        "response, and to accept, reject or edit pairs. The review decisions are written next to the data set; use "
        "them with `longpo register --reviewed` or `longpo export --reviewed`.",
    )
    add_pairs(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7870, help="port; 0: any free port (default: %(default)s)")
    parser.add_argument("--reviewer", default="", metavar="NAME", help="your name, to be saved with your decisions")


def run(options: argparse.Namespace) -> int:
    from lf_longpo.viewer.serve import view

    view(options.name, options.dataset_dir, options.host, options.port, options.reviewer.strip())
    return 0
