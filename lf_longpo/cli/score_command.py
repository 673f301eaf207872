"""`longpo score`: LongReward's scores for existing responses."""

import argparse
from typing import TYPE_CHECKING, Any

from lf_longpo.cli.arguments import Subparsers, add_command, add_run, print_loading

if TYPE_CHECKING:
    from lf_longpo.config import ScoreConfig


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "score",
        run,
        help="score existing responses (LongReward)",
        description="Scores responses from 0 to 10 for helpfulness, logicality, faithfulness and completeness. Run the "
        "same command again to resume; finished calls are not repeated.",
    )
    add_run(parser)
    parser.add_argument(
        "responses", metavar="FILE", help="rows with idx (<idx of the context>-<number>), query and answer"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="override a setting, such as contexts=FILE (rows with idx, query and context; default: each response has "
        "a context), judge.model=NAME, output_dir=DIR (default: runs/score_FILE)",
    )
    parser.add_argument(
        "--config", help="YAML file with judge, embedder, tokenizer and longreward (default: the embedded models)"
    )


def run(options: argparse.Namespace) -> int:
    import asyncio
    import json

    from lf_longpo.cli.settings_files import load_settings
    from lf_longpo.config import ScoreConfig

    # A JSON text is a YAML text: a name with special characters stays one text.
    responses = f"responses={json.dumps(options.responses, ensure_ascii=False)}"
    config = load_settings(ScoreConfig, options.config, [responses, *options.overrides])
    print_loading()
    from lf_longpo.longreward.score_file import score_file

    summary, exit_code = asyncio.run(score_file(config))
    print_scores(summary, config, options.command)
    return exit_code


def print_scores(summary: dict[str, Any], config: "ScoreConfig", command: str) -> None:
    """Prints the end of `longpo score`.

    Args:
        summary: as in summary.json.
        command: as the user has typed it.
    """
    from rich.markup import escape

    from lf_longpo.cli import run_output as output
    from lf_longpo.longreward.response_files import SCORES

    console = output.stdout_console()
    table = output.result_table("LongReward scores")
    for row in output.score_rows(summary):
        table.add_row(*row)
    output.add_calls(table, summary)
    table.add_row("scores", escape(str(config.output_dir / SCORES)))
    output.add_failures(table, summary, config.output_dir)
    console.print(table)
    output.print_unfinished(console, config.max_cost, summary, summary["questions"], command)
    output.print_advice(console, config, summary)
