"""`longpo check`: the errors of a training recipe, before it runs."""

import argparse
import sys

from lf_longpo.cli.arguments import Subparsers, add_command, add_recipe, parallel_processes, whole_number_above_0


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "check",
        run,
        help="check a training recipe before it runs",
        description="Checks a training recipe with LLaMA-Factory's own parser, loader and templates: settings, data, "
        "lengths, DeepSpeed, memory. The exit code is 2 if there is an error.",
    )
    add_recipe(parser)
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument(
        "--gpus", type=int, default=0, metavar="N", help="number of GPUs (default: this machine's, or 8)"
    )
    parser.add_argument(
        "--gpu-memory", type=float, default=0, metavar="GIB", help="memory of a GPU (default: this machine's, or 80)"
    )
    parser.add_argument(
        "--sequence-parallel",
        type=parallel_processes,
        default=1,
        metavar="P",
        help="estimate the memory of longpo train with each row split over P GPUs, or auto for the least P that fits "
        "(default: 1)",
    )
    parser.add_argument(
        "--max-row-tokens",
        type=whole_number_above_0,
        metavar="N",
        help="estimate for this option of longpo train: rows of at most N tokens for several pairs of a prompt",
    )
    parser.add_argument(
        "--fix-lengths",
        action="store_true",
        help="write and register a copy of each data set; contexts that are too long lose their middle",
    )


def run(options: argparse.Namespace) -> int:
    from contextlib import redirect_stdout

    from lf_longpo.cli.settings_files import refuse_other_files
    from lf_longpo.plugin.recipe import read_recipe

    refuse_other_files("longpo check", options.recipe)
    read_recipe(options.recipe, options.overrides)  # reports errors before LLaMA-Factory is imported, which takes long
    with redirect_stdout(sys.stderr):  # libraries print to stdout, which is for the report only
        from lf_longpo.cli.run_output import stdout_console
        from lf_longpo.plugin.check.fix_lengths import fix_lengths
        from lf_longpo.plugin.check.printing import as_json, print_copies, print_report
        from lf_longpo.plugin.check.recipe_check import check

        machine = (options.gpus, options.gpu_memory)
        checked = check(options.recipe, options.overrides, *machine, options.sequence_parallel, options.max_row_tokens)
        copies = fix_lengths(checked) if options.fix_lengths else []
    if options.json:
        print(as_json(options.recipe, checked.findings, copies))
    else:
        print_report(stdout_console(), options.recipe, checked.findings)
        print_copies(stdout_console(), copies)
    return 2 if checked.findings.errors else 0
