"""What `longpo evaluate judge` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from lf_longpo.cli.evaluation_output import INTERVAL_LINE, METRICS, percent, results_table
from lf_longpo.cli.run_output import print_unfinished, stdout_console
from lf_longpo.config import EvaluateJudgeConfig
from lf_longpo.engine.progress import totals_line
from lf_longpo.models.cache import StageTotals


def print_judge(results: Sequence[Mapping[str, Any]], config: EvaluateJudgeConfig, command: str) -> None:
    """Prints the end of the evaluation of a judge.

    Args:
        results: as in results.json: those of the baseline, if there is one, then those of this evaluation.
        config: the evaluation's.
        command: as the user has typed it.
    """
    console = stdout_console()
    last = results[-1]
    console.print(results_table(results))
    console.print(INTERVAL_LINE, markup=False)
    if len(last["lengths"]) > 1:
        console.print(_length_table(last))
    _print_length_control(console, last["length_controlled"])
    if last["unjudged"]:
        console.print(
            f"{last['unjudged']} of {last['decisions']} decisions have no readable verdict; predictions.jsonl holds "
            "the judge's replies.",
            markup=False,
        )
    if last["failed"]:
        console.print(f"{last['failed']} pairs failed: {config.output_dir / 'failures.jsonl'}", markup=False)
    for stage, totals in last["calls"].items():
        console.print(f"{stage}: {totals_line(StageTotals(**totals))}", markup=False)
    if per := last["per_decision"]:
        tokens = f"{per['prompt_tokens']:,.0f} prompt tokens, {per['completion_tokens']:,.0f} new tokens"
        cost = f", cost {per['cost']:,.6f}" if per["cost"] else ""
        console.print(f"A decision takes {per['calls']:,.1f} calls, {tokens}{cost}.", markup=False)
    number = sum(last[name] for name in ("questions", "failed", "unfinished"))
    print_unfinished(console, config.max_cost, last, number, command, "pairs")
    console.print(f"Predictions and results: {config.output_dir}", markup=False)


def _length_table(results: Mapping[str, Any]) -> Table:
    metrics = results["metrics"]
    table = Table(title="by tokens of the context, percent", title_justify="left")
    table.add_column("tokens")
    for column in ("pairs", *(METRICS[metric] for metric in metrics)):
        table.add_column(column, justify="right")
    for row in results["lengths"]:
        label = f"up to {row['to']:,}" if row["to"] else f"above {row['from']:,}"
        table.add_row(label, str(row["questions"]), *(percent(row, metric) for metric in metrics))
    return table


def _print_length_control(console: Console, found: Mapping[str, Any] | None) -> None:
    if found is None:
        console.print(
            "Length-controlled agreement is unknown: it needs labels for the longer and for the shorter response."
        )
        return
    low, high = found["interval"]
    groups = (
        f"{100 * found[name]['agreement']:.1f} on {found[name]['questions']} pairs whose label is the {word} response"
        for name, word in (("chosen_longer", "longer"), ("chosen_shorter", "shorter"))
    )
    console.print(
        f"Length-controlled agreement: {100 * found['agreement']:.1f} ({100 * low:.1f}-{100 * high:.1f}), the mean of "
        f"{' and '.join(groups)}.",
        markup=False,
    )
