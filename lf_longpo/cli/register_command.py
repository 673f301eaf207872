"""`longpo register`: an entry in LLaMA-Factory's dataset_info.json."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lf_longpo.cli.arguments import Subparsers, add_command, add_dataset_dir
from lf_longpo.cli.review_output import check_only_accepted, print_decisions
from lf_longpo.errors import UserError


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "register",
        run,
        help="add a data set to dataset_info.json",
        description="Adds a file, a folder of files or a data set on the hub to LLaMA-Factory's dataset_info.json. The "
        "format of a local file is read from its first rows if you do not set it.",
    )
    parser.add_argument(
        "source",
        help="a .jsonl, .json, .parquet, .csv, .arrow or .txt file, a folder of such files of one type, an s3:// or "
        "gs:// address, or a name on the hub",
    )
    parser.add_argument("--name", required=True, help="name for the key `dataset` of a recipe")
    add_dataset_dir(parser)
    parser.add_argument("--format", choices=["alpaca", "sharegpt"], help="prompt and response, or messages")
    parser.add_argument("--ranking", action=argparse.BooleanOptionalAction, help="rows have chosen and rejected")
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="NAME=COLUMN",
        help="LLaMA-Factory's names and the columns of your data: prompt=question response=answer",
    )
    parser.add_argument(
        "--tags",
        nargs="+",
        metavar="NAME=TAG",
        help="sharegpt: LLaMA-Factory's names and the tags of your data: role_tag=role",
    )
    parser.add_argument("--subset", help="configuration of a data set on the hub")
    parser.add_argument("--split", help="split of a data set on the hub")
    parser.add_argument(
        "--reviewed",
        action="store_true",
        help="write NAME.jsonl: the pairs of a run, a file or a data set with the review decisions of longpo view",
    )
    parser.add_argument("--only-accepted", action="store_true", help="--reviewed: remove undecided pairs, too")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an entry of another format, or a reviewed file"
    )


def run(options: argparse.Namespace) -> int:
    check_only_accepted(options)
    if options.reviewed:
        return _register_reviewed(options)
    from lf_longpo.files.tables import check_halves
    from lf_longpo.plugin.dataset_files import files_of, first_rows
    from lf_longpo.plugin.entries import describe_dataset, is_local, remarks
    from lf_longpo.plugin.registry import register_dataset

    entry = describe_dataset(
        options.source,
        options.dataset_dir,
        formatting=options.format,
        ranking=options.ranking,
        columns=_mapping(options.columns),
        tags=_mapping(options.tags),
        subset=options.subset,
        split=options.split,
    )
    if "file_name" in entry:
        for file in files_of(Path(options.source)):
            check_halves(str(file))
    register_dataset(options.dataset_dir, options.name, entry, overwrite=options.overwrite)
    print(f"registered {options.name} in {options.dataset_dir}/dataset_info.json: {entry}")
    if is_local(options.source):
        for remark in remarks(first_rows(Path(options.source)), entry):
            print(remark)
    return 0


def _register_reviewed(options: argparse.Namespace) -> int:
    from lf_longpo.export.export import register_reviewed

    format_options = ("format", "ranking", "columns", "tags", "subset", "split")
    if given := [f"--{name}" for name in format_options if getattr(options, name) is not None]:
        raise UserError(f"{given[0]} cannot be used with --reviewed, which keeps the format of the data set; remove it")
    path, counts = register_reviewed(
        options.source, options.dataset_dir, options.name, options.overwrite, options.only_accepted
    )
    print(f"{counts['kept']:,} pairs -> {path}")
    print_decisions(counts, options.only_accepted)
    return 0


def _mapping(pairs: Sequence[str] | None) -> dict[str, str]:
    mapping = {}
    for pair in pairs or ():
        name, equals, column = pair.partition("=")
        if not (name and equals and column):
            raise UserError(f"{pair!r} must have the form NAME=COLUMN; write it as in prompt=question")
        mapping[name] = column
    return mapping
