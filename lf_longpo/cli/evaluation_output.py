"""What evaluations and their comparison print."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lf_longpo.cli.run_output import print_unfinished, stdout_console
from lf_longpo.config import EvaluateConfig
from lf_longpo.engine.progress import totals_line
from lf_longpo.evaluation.compare import Comparison
from lf_longpo.models.cache import StageTotals
from lf_longpo.report.advice import gold_advice, thought_advice

METRICS = {
    "em": "EM",
    "f1": "F1",
    "sub_em": "SubEM",
    "sub_em_output": "SubEM in output",
    "answered": "answered",
    "judge": "judge",
    "automatic": "F1 or ROUGE-L",
    "win_rate": "win rate",
    "win": "wins",
    "tie": "ties",
    "loss": "losses",
    "agreed": "orders agreed",
    "agreement": "agreement",
    "prefers_longer": "prefers longer",
    "wrongly_longer": "wrongly longer",
    "first": "prefers first",
    "helpfulness": "helpfulness",
    "logicality": "logicality",
    "faithfulness": "faithfulness",
    "completeness": "completeness",
    "stable": "stable",
}
"""Column headers."""
INTERVAL_LINE = "Below each mean: its 95% confidence interval (bootstrap over questions)."


def print_evaluation(results: Sequence[Mapping[str, Any]], config: EvaluateConfig, command: str) -> None:
    """Prints the end of an evaluation.

    Args:
        results: as in results.json: those of the baseline, if there is one, then those of this evaluation.
        command: as the user has typed it.
    """
    console = stdout_console()
    console.print(results_table(results))
    console.print(INTERVAL_LINE, markup=False)
    _print_remarks(console, results[-1], config)
    for stage, totals in results[-1]["calls"].items():
        console.print(f"{stage}: {totals_line(StageTotals(**totals))}", markup=False)
    if results[-1]["cost"]:
        console.print(f"cost {results[-1]['cost']:,.4f}", markup=False)
    questions = sum(results[-1][name] for name in ("questions", "failed", "unfinished"))
    print_unfinished(console, config.max_cost, results[-1], questions, command)
    console.print(f"Predictions and results: {config.output_dir}", markup=False)


def results_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each set, each group of sets and the mean of all sets, for each of the results."""
    metrics = results[-1]["metrics"]
    several = any(len(row["sets"]) > 1 for row in results)
    table = Table(title=f"{results[-1]['benchmark']}, percent", title_justify="left")
    for column in ("model", *(["set"] if several else []), "questions", *(METRICS[metric] for metric in metrics)):
        table.add_column(column, justify="left" if column in ("model", "set") else "right")
    for row in results:
        name = _model_name(row)
        scopes = ("sets", "groups") if several else ()
        for label, scores in (item for scope in scopes for item in row[scope].items()):
            table.add_row(name, label, str(scores["questions"]), *(percent(scores, metric) for metric in metrics))
            name = ""
        means = (percent(row, metric) for metric in metrics)
        table.add_row(name, *(["mean of the sets"] if several else []), str(row["questions"]), *means, end_section=True)
    return table


def _print_remarks(console: Console, results: Mapping[str, Any], config: EvaluateConfig) -> None:
    if results["unjudged"]:
        console.print(
            f"{results['unjudged']} answers without a readable verdict; predictions.jsonl holds the judge's replies."
        )
    if results["failed"]:
        console.print(f"{results['failed']} questions failed: {config.output_dir / 'failures.jsonl'}", markup=False)
    for advice in gold_advice(results["gold_in_every_text"]) + thought_advice(results["unfinished_thoughts"]):
        console.print(advice, markup=False)
    if results["unread_answers"]:
        console.print(
            f"{results['unread_answers']} outputs give their answer in Markdown (such as **Answer**: X), where the "
            "published rule finds none.",
            markup=False,
        )


def _model_name(results: Mapping[str, Any]) -> str:
    models = [results, *([results["against"]] if "against" in results else [])]
    names = (" + ".join(filter(None, (model["model"], model["adapter"]))) for model in models)
    return escape(" against ".join(names))


def percent(scores: Mapping[str, Any], metric: str) -> str:
    """A mean and below it its interval, in percent; `-` if it is unknown."""
    if scores.get(metric) is None:
        return "-"
    low, high = scores["intervals"][metric]
    return f"{100 * scores[metric]:.1f}\n{100 * low:.1f}-{100 * high:.1f}"


def print_comparison(comparison: Comparison) -> None:
    """Prints the end of `longpo evaluate compare`: a row for each set and metric, in percent."""
    console = stdout_console()
    several = len({difference.scope for difference in comparison.differences}) > 1
    table = Table(title=f"{comparison.first['benchmark']}, percent", title_justify="left")
    for column in (*(["set"] if several else []), "metric"):
        table.add_column(column)
    first, second = (_model_name(results) for results in (comparison.first, comparison.second))
    for column in ("questions", f"A: {first}", f"B: {second}", "B - A", "95% interval", ""):
        table.add_column(column, justify="right")
    scope = None
    for row in comparison.differences:
        label = [] if not several else [row.scope if row.scope != scope else ""]
        scope = row.scope
        means = (f"{100 * mean:.1f}" for mean in row.means)
        low, high = row.difference.low, row.difference.high
        sign = "higher" if low > 0 else "lower" if high < 0 else "not sure"
        interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
        values = (METRICS[row.metric], str(row.questions), *means, f"{100 * row.difference.mean:+.1f}", interval, sign)
        table.add_row(*label, *values)
    console.print(table)
    if comparison.only_one:
        console.print(
            f"{comparison.only_one} questions were skipped: only one of the evaluations has them, or their texts "
            "differ.",
            markup=False,
        )
