"""`longpo status`: how far a run is, or all runs below a folder."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lf_longpo.cli.arguments import Subparsers, add_command
from lf_longpo.errors import UserError

if TYPE_CHECKING:
    from lf_longpo.run_folder.status import Status

_STATES = {
    "running": "running",
    "ended": "ended",
    "interrupted": "interrupted; run the same command again to resume",
    "unfinished": "stopped before the cost exceeded max_cost; raise it and run the same command again to resume",
    "stopped": "stopped without an end (a kill, or an error); run the same command again to resume",
}


def add(subparsers: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "status",
        run,
        help="show how far a run is, or all runs of a folder",
        description="Shows stage, counts, speed, time left, cost, the most frequent failure and the last activity of a "
        "run, and whether a process is working on it. Works for generate, score, evaluate and synthesize "
        "self-instruct, while they run, after a kill, after their end, and on Ray. Reads only.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("runs"),
        metavar="RUN",
        help="output_dir of a run, or a folder of runs (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Shows one run in detail, or several in a table."""
    import json
    from dataclasses import asdict

    from lf_longpo.run_folder.status import runs_below, status_of

    folder: Path = options.folder
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name the output_dir of a run, or a folder of runs")
    runs = runs_below(folder)
    if not runs:
        raise UserError(f"no run in {folder} or below; name the output_dir of a run, or a folder of runs")
    if runs == [folder]:
        status = status_of(folder)
        if options.json:
            print(json.dumps(asdict(status), ensure_ascii=False))
        else:
            _print_run(status)
        return 0
    found, unknown = [], []
    for path in runs:
        try:
            found.append(status_of(path))
        except UserError as error:
            unknown.append(str(error))
    if options.json:
        print(json.dumps({"runs": [asdict(status) for status in found], "unknown": unknown}, ensure_ascii=False))
    else:
        _print_runs(found, unknown)
    return 0


def _print_run(status: "Status") -> None:
    from rich.markup import escape

    from lf_longpo.cli.run_output import result_table, stdout_console

    table = result_table(f"{_kind(status)}: {status.run}")
    for name, value in _rows(status):
        table.add_row(name, escape(value))
    stdout_console().print(table)


def _rows(status: "Status") -> Iterator[tuple[str, str]]:
    from lf_longpo.cli.run_output import duration
    from lf_longpo.engine.progress import totals_line
    from lf_longpo.models.cache import StageTotals

    running = status.state == "running"
    yield "state", _STATES[status.state]
    if status.process and running:
        yield "process", "{pid} on {host}, since {started}".format(**status.process)
    if status.shards:
        yield "shards", "{total}, {ended} ended, {running} running".format(**status.shards)
    yield status.items, f"{_done(status)}, {_number(status.failed)} failed"
    if status.stage:
        yield "stage", status.stage
    for count in status.stages:
        total = "" if count.total is None else f" of {count.total:,}"
        yield count.stage, f"{count.done:,}{total}"
    if status.pairs is not None:
        several = status.questions_with_pairs and status.questions_with_pairs < status.pairs
        yield "pairs", f"{status.pairs:,}" + (f" from {status.questions_with_pairs:,} questions" if several else "")
    if status.new_tokens_per_second is not None:
        yield "speed", f"{status.new_tokens_per_second:,.0f} new tokens/s" + ("" if running else " in the last start")
    if status.state != "ended":
        left = "unknown"
        if status.seconds_left is not None:
            left = f"about {duration(status.seconds_left)}" + ("" if running else " at the speed of the last start")
        yield "left", left if status.steps_left is None else f"{left}, {status.steps_left:,} steps"
    for stage, totals in status.calls.items():
        yield f"{stage} calls", totals_line(StageTotals(**totals))
    if status.cost:
        yield "cost", f"{status.cost:,.4f}"
    if status.failure:
        yield "most frequent failure", f"{status.failure.times:,} times: {status.failure.reason}"
    if status.last_activity:
        yield "last activity", f"{status.last_activity} ({_ago(status)} ago)"


def _print_runs(found: "list[Status]", unknown: list[str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from lf_longpo.cli.run_output import duration, stdout_console

    console = stdout_console()
    table = Table()
    for column in ("run", "kind", "state", "done", "failed", "pairs", "new tokens/s", "left", "cost", "last activity"):
        table.add_column(column, overflow="fold")
    for status in found:
        left = "?" if status.seconds_left is None else duration(status.seconds_left)
        speed = status.new_tokens_per_second if status.state == "running" else None
        table.add_row(
            escape(status.run),
            _kind(status),
            status.state,
            _done(status),
            _number(status.failed),
            "-" if status.pairs is None else f"{status.pairs:,}",
            "-" if speed is None else f"{speed:,.0f}",
            "-" if status.state == "ended" else left,
            f"{status.cost:,.2f}" if status.cost else "-",
            f"{_ago(status)} ago" if status.last_activity else "-",
        )
    console.print(table)
    for line in unknown:
        console.print(line, markup=False)


def _kind(status: "Status") -> str:
    command = status.command.removeprefix("longpo ")
    return f"{command} {status.method}" if status.method else command


def _done(status: "Status") -> str:
    return f"{_number(status.done)} of {_number(status.questions)}"


def _number(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _ago(status: "Status") -> str:
    from datetime import UTC, datetime

    from lf_longpo.cli.run_output import duration

    assert status.last_activity, "the caller has checked it"
    return duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(status.last_activity)).total_seconds()))
