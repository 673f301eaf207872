"""What several commands print at their end: tables, calls and cost, what is unfinished, advice, estimates."""

import argparse
import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lf_longpo.config import GenerateConfig, LongMabGenerateConfig, ScoreConfig
from lf_longpo.engine.progress import totals_line
from lf_longpo.engine.session import RunConfig
from lf_longpo.errors import UserError
from lf_longpo.models.cache import StageTotals
from lf_longpo.models.usage import Expected, Speed, Usage
from lf_longpo.report.advice import answer_advice, gold_advice, thought_advice, truncation_advice
from lf_longpo.run_folder.measured_speed import measured_speed


def stdout_console() -> Console:
    """A console on stdout. A file or a pipe gets lines of 120 characters, wide enough for whole tables."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


def result_table(title: str) -> Table:
    """An empty table of names and values."""
    table = Table(title=escape(title), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # never shortens a path
    return table


def add_calls(table: Table, summary: dict[str, Any]) -> None:
    """Adds the calls of each stage, the cost and the time of a run.

    Args:
        summary: as in summary.json.
    """
    for stage, totals in summary["calls"].items():
        table.add_row(f"{stage} calls", totals_line(StageTotals(**totals)))
    if summary["cost"]:
        table.add_row("cost", f"{summary['cost']:,.4f}")
    table.add_row("time", f"{summary['seconds']:.0f} s")


def add_failures(table: Table, summary: dict[str, Any], output_dir: Path) -> None:
    """Adds the file of failures, if there are any."""
    if summary["failed"] or summary.get("not_scored"):
        table.add_row("failures", escape(str(output_dir / "failures.jsonl")))


def score_rows(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of LongReward's scores."""
    given_up = f", {summary['given_up']} given up by racing" if summary.get("given_up") else ""
    yield "responses", f"{summary['scored']} scored{given_up}, {summary['not_scored']} failed"
    if summary["scored"]:
        means = ", ".join(f"{name} {mean:.2f}" for name, mean in summary["mean_scores"].items())
        yield "scores", f"mean {means}"
        yield "reward", f"mean {summary['mean_reward']:.2f}"
        yield "rewards", histogram(summary["reward_histogram"], ("0-2", "2-4", "4-6", "6-8", "8-10"))


def histogram(counts: Sequence[int], labels: Sequence[str]) -> str:
    """Counts with their labels, in one line."""
    return ", ".join(f"{label}: {number}" for label, number in zip(labels, counts, strict=True))


def print_unfinished(
    console: Console,
    max_cost: float | None,
    summary: Mapping[str, Any],
    number: int,
    command: str,
    items: str = "questions",
) -> None:
    """Prints what is unfinished, if anything is, and the command that resumes a run that `max_cost` has stopped.

    Args:
        console: to print on.
        max_cost: the run's budget.
        summary: as in summary.json.
        number: how many questions the run has.
        command: as the user has typed it.
        items: the noun for questions.
    """
    unfinished = summary["unfinished"]
    if not unfinished:
        return
    if summary["interrupted"]:  # the next command follows, on stderr
        console.print(f"Interrupted: {unfinished:,} of {number:,} {items} are unfinished.", markup=False)
        return
    console.print(
        f"Stopped before the cost exceeded max_cost = {max_cost:g}; {unfinished:,} of {number:,} {items} are "
        "unfinished. Raise max_cost and run the same command again to resume.",
        markup=False,
    )
    budget = "COST"
    if finished := number - unfinished:
        budget = _rounded_up(max(summary["cost"] * number / finished, 1.1 * (max_cost or 0.0)))
        console.print(f"At the cost so far, all {items} cost about {budget}.", markup=False)
    words = [word for word in shlex.split(command) if not word.startswith("max_cost=")]
    console.print(f"Next: {shlex.join([*words, f'max_cost={budget}'])}", markup=False)


def _rounded_up(cost: float) -> str:
    """A cost above 0 with two digits that count."""
    unit = 10.0 ** (math.floor(math.log10(cost)) - 1)
    return f"{math.ceil(cost / unit) * unit:.12g}"


def print_advice(console: Console, config: GenerateConfig | ScoreConfig, summary: dict[str, Any]) -> None:
    """Prints which settings to change, if the results show that they do not fit."""
    calls = {stage: (totals["calls"], totals["truncated"]) for stage, totals in summary["calls"].items()}
    advice = truncation_advice(config, calls) + thought_advice(summary["unfinished_thoughts"])
    if isinstance(config, LongMabGenerateConfig):
        advice += answer_advice(config.longmab.answer_form, summary["rollouts"], summary["unread_answers"])
        advice += gold_advice(summary["gold_in_every_text"])
    for line in advice:
        console.print(line, markup=False)


def speed_for(options: argparse.Namespace, config: RunConfig) -> Speed | None:
    """The speed for an estimate: what the user has set, or what was measured; None if there is neither.

    Args:
        options: with those of `add_estimate`.
        config: the run's.

    Raises:
        UserError: only the speed of prompts is set.
    """
    if options.tokens_per_second:
        return Speed(options.tokens_per_second, options.prompt_tokens_per_second, "the speed that you set")
    if options.prompt_tokens_per_second:
        raise UserError("--prompt-tokens-per-second alone gives no time; set --tokens-per-second, too")
    return measured_speed(config)


def print_estimate(title: str, expected: Sequence[Expected], speed: Speed | None) -> None:
    """Prints the calls, tokens, cost and time that a run is expected to take."""
    console = stdout_console()
    table = Table(title=escape(f"{title}, expected"), title_justify="left")
    table.add_column("stage")
    for column in ("calls", "prompt tokens", "new tokens", "cost", "time"):
        table.add_column(column, justify="right")
    priced = any(row.cost for row in expected)
    total = sum((row.usage for row in expected), Usage())
    for row in (*expected, Expected("total", total, sum(row.cost for row in expected))):
        numbers = (row.usage.calls, row.usage.prompt_tokens, row.usage.completion_tokens)
        cost = f"{row.cost:,.4f}" if priced else "-"
        time = duration(speed.seconds(row.usage)) if speed else "-"
        table.add_row(row.stage, *(f"{number:,}" for number in numbers), cost, time, end_section=row is expected[-1])
    console.print(table)
    if not priced:
        console.print("The cost is unknown: set price.prompt and price.completion (per million tokens) for the models.")
    console.print(_about_time(speed), markup=False)
    console.print("For a run from its start; no calls were made. The lengths of replies are assumptions.")


def _about_time(speed: Speed | None) -> str:
    if speed is None:
        return (
            "The time is unknown: set --tokens-per-second, or start the run and interrupt it after some minutes. "
            "--estimate then uses its measured speed."
        )
    prompts = f" and {speed.prompt:,.0f} prompt tokens" if speed.prompt else ""
    left_out = "" if speed.prompt else "; the time for prompts is part of it"
    return f"Time: at {speed.new:,.0f} new tokens{prompts} a second, {speed.source}{left_out}."


def duration(seconds: float) -> str:
    """A time in its two largest units: `45 s`, `12 min`, `3 h 20 min`, `2 d 5 h`."""
    for size, unit, part, name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min")):
        if seconds >= size:
            whole, rest = divmod(round(seconds / part), size // part)
            return f"{whole} {unit} {rest} {name}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
