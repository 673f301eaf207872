"""`longpo export`: pairs or responses in the format of another trainer, or on the hub."""

import argparse
from collections import Counter
from pathlib import Path

from lf_longpo.cli.arguments import Subparsers, add_command, add_pairs
from lf_longpo.cli.review_output import check_only_accepted, print_decisions
from lf_longpo.errors import UserError


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "export",
        run,
        help="write pairs or responses in other formats",
        description="Writes a data set in another format: the pairs as they are, TRL's preference or unpaired format, "
        "or LLaMA-Factory's sharegpt pairs or KTO.",
    )
    add_pairs(parser)
    parser.add_argument("output", type=Path, help="the .jsonl or .parquet file to write")
    parser.add_argument(
        "--to",
        choices=["pairs", "trl-dpo", "sharegpt", "trl-kto", "kto"],
        default="pairs",
        help="format (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="kto, trl-kto: smallest reward of a desirable response (default: the middle between the smallest and the "
        "largest reward of the question)",
    )
    parser.add_argument("--reviewed", action="store_true", help="apply the review decisions of longpo view")
    parser.add_argument("--only-accepted", action="store_true", help="--reviewed: remove undecided pairs, too")
    parser.add_argument("--register", metavar="NAME", help="kto: register the file as a LLaMA-Factory data set")
    parser.add_argument("--push-to-hub", metavar="ORG/NAME", help="upload the file with a data card (token: HF_TOKEN)")
    parser.add_argument("--private", action="store_true", help="create a private repository on the hub")


def run(options: argparse.Namespace) -> int:
    from lf_longpo.export.export import export, push, register_kto

    if options.register and options.to != "kto":
        raise UserError("--register needs --to kto; register pairs with `longpo register`")
    if options.private and not options.push_to_hub:
        raise UserError("--private needs --push-to-hub")
    check_only_accepted(options)
    reviewed = Counter[str]() if options.reviewed else None
    number, viewed = export(
        options.name,
        options.to,
        options.output,
        options.dataset_dir,
        options.threshold,
        reviewed,
        options.only_accepted,
    )
    print(f"{number:,} rows -> {options.output}")
    if reviewed is not None:
        print_decisions(reviewed, options.only_accepted)
    if options.register:
        register_kto(options.dataset_dir, options.register, options.output, viewed)
        print(f"registered {options.register} in {options.dataset_dir}/dataset_info.json")
    if options.push_to_hub:
        print(push(options.push_to_hub, options.output, number, options.to, viewed, options.private))
    return 0
