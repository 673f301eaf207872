"""What is printed when a run has ended: what came out, where it lies and what to do next."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lf_longpo.config import EvaluateConfig, GenerateConfig, LongMabGenerateConfig, ScoreConfig
from lf_longpo.config.loading import read_settings
from lf_longpo.engine.progress import totals_line
from lf_longpo.errors import UserError
from lf_longpo.longreward.response_files import SCORES
from lf_longpo.models.cache import StageTotals
from lf_longpo.models.usage import Expected, Usage
from lf_longpo.report.advice import answer_advice, gold_advice, truncation_advice
from lf_longpo.report.page import REPORT
from lf_longpo.run_folder.data_set import data_set_of

if TYPE_CHECKING:
    from lf_longpo.config import SelfInstructConfig
    from lf_longpo.evaluation.compare import Comparison
    from lf_longpo.synthesis.data_card import Card
    from lf_longpo.synthesis.mix import Choice

_METRICS = {
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
}
_NOT_WRITTEN = {
    "none": "No pairs: nothing was registered.",
    "kept": "The registered data set {} was not changed: it has pairs that this run has not recreated. Start the same "
    "command again.",
    "removed": "No pairs: the registered data set {} was out of date and has been removed.",
}
_METHODS = {"longmab": "LongMab-PO", "longreward": "LongReward"}


def stdout_console() -> Console:
    """Writes to stdout; wide enough for whole tables where that is a file or a pipe."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


def print_generation(config: GenerateConfig, summary: dict[str, Any]) -> None:
    """The end of `longpo generate`."""
    console = stdout_console()
    table = _table(method_title(config))
    rows = _longmab_rows if config.method == "longmab" else _longreward_rows
    for row in rows(summary):
        table.add_row(*row)
    _add_calls(table, summary)
    table.add_row("run", escape(str(config.output_dir)))
    table.add_row("report", escape(str(config.output_dir / REPORT)))
    if summary["failed"] or summary.get("not_scored"):
        table.add_row("failures", escape(str(config.output_dir / "failures.jsonl")))
    if summary["data_set"] == "written":
        table.add_row("data set", escape(str(data_set_of(config))))
    console.print(table)
    _tell_budget(console, config.max_cost, summary)
    _advise(console, config, summary)
    if summary["stage"] != "pairs":
        console.print(f"Stopped after the stage {summary['stage']}; the same command with a later --stage carries on.")
    elif summary["data_set"] == "written":
        console.print(f"Next: longpo train {_recipe_of(config)}", markup=False)
    else:
        console.print(_NOT_WRITTEN[summary["data_set"]].format(data_set_of(config)), markup=False)


def method_title(config: GenerateConfig) -> str:
    """What a generation is called."""
    return f"{_METHODS[config.method]}: {config.dataset_name}"


def print_estimate(title: str, expected: Sequence[Expected]) -> None:
    """What a run is expected to take."""
    console = stdout_console()
    table = Table(title=escape(f"{title}, expected"), title_justify="left")
    table.add_column("stage")
    for column in ("calls", "prompt tokens", "new tokens", "cost"):
        table.add_column(column, justify="right")
    priced = any(row.cost for row in expected)
    total = sum((row.usage for row in expected), Usage())
    for row in (*expected, Expected("total", total, sum(row.cost for row in expected))):
        numbers = (row.usage.calls, row.usage.prompt_tokens, row.usage.completion_tokens)
        cost = f"{row.cost:,.4f}" if priced else "-"
        table.add_row(row.stage, *(f"{number:,}" for number in numbers), cost, end_section=row is expected[-1])
    console.print(table)
    if not priced:
        console.print("No cost: set price.prompt and price.completion (per million tokens) beside the models.")
    console.print("Of a run from its beginning; nothing was called. What models will write is assumed.")


def print_scores(summary: dict[str, Any], config: ScoreConfig) -> None:
    """The end of `longpo score`."""
    console = stdout_console()
    table = _table("LongReward scores")
    for row in _score_rows(summary):
        table.add_row(*row)
    _add_calls(table, summary)
    table.add_row("scores", escape(str(config.output_dir / SCORES)))
    if summary["failed"] or summary["not_scored"]:
        table.add_row("failures", escape(str(config.output_dir / "failures.jsonl")))
    console.print(table)
    _tell_budget(console, config.max_cost, summary)
    _advise(console, config, summary)


def _advise(console: Console, config: GenerateConfig | ScoreConfig, summary: dict[str, Any]) -> None:
    calls = {stage: (told["calls"], told["truncated"]) for stage, told in summary["calls"].items()}
    told = truncation_advice(config, calls)
    if isinstance(config, LongMabGenerateConfig):
        told += answer_advice(config.longmab.answer_form, summary["rollouts"], summary["unread_answers"])
        told += gold_advice(summary["gold_in_every_text"])
    for advice in told:
        console.print(advice, markup=False)


def _tell_budget(console: Console, max_cost: float | None, summary: dict[str, Any], things: str = "questions") -> None:
    if summary["unfinished"] and not summary["interrupted"]:
        console.print(
            f"Stopped before max_cost = {max_cost:g} was exceeded, with {summary['unfinished']} {things} unfinished; "
            "raise it and start the same command again to carry on.",
            markup=False,
        )


def _table(title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # paths stay whole
    return table


def _add_calls(table: Table, summary: dict[str, Any]) -> None:
    for stage, totals in summary["calls"].items():
        table.add_row(f"{stage} calls", totals_line(StageTotals(**totals)))
    if summary["cost"]:
        table.add_row("cost", f"{summary['cost']:,.4f}")
    table.add_row("time", f"{summary['seconds']:.0f} s")


def _longmab_rows(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        "pairs",
        f"{summary['pairs']} pairs from {summary['questions']} questions "
        f"({summary['left_out']} left out by their probe, {summary['all_equal']} with all rewards equal, "
        f"{summary['cut_off']} with too few whole responses, {summary['failed']} failed)",
    )
    yield "roll-outs", str(summary["rollouts"])
    if summary["rollouts"]:
        # A run that was stopped may have none in the last third.
        means = (summary[f"mean_reward_{third}_third"] for third in ("first", "last"))
        first, last = ("none" if mean is None else f"{mean:.3f}" for mean in means)
        yield "reward", f"mean {summary['mean_reward']:.3f} (first third of the rounds {first}, last {last})"
        yield "answers", f"{summary['unread_answers']} of the outputs have one in Markdown only (longmab.answer_form)"
        yield "rewards", _histogram(summary["reward_histogram"], ("0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1"))
        yield "arms", f"{summary['mean_arms']:.1f} chunks a question, {summary['mean_arms_tried']:.1f} of them tried"


def _longreward_rows(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        "pairs",
        f"{summary['pairs']} pairs from {summary['questions']} questions "
        f"({summary['all_equal']} with all rewards equal, {summary['too_few_responses']} with too few responses, "
        f"{summary['cut_off']} with too few whole responses, {summary['failed']} failed)",
    )
    yield from _score_rows(summary)


def _score_rows(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "responses", f"{summary['scored']} scored, {summary['not_scored']} could not be"
    if summary["scored"]:
        means = ", ".join(f"{name} {mean:.2f}" for name, mean in summary["mean_scores"].items())
        yield "scores", f"mean {means}"
        yield "reward", f"mean {summary['mean_reward']:.2f}"
        yield "rewards", _histogram(summary["reward_histogram"], ("0-2", "2-4", "4-6", "6-8", "8-10"))


def _histogram(counts: Sequence[int], labels: Sequence[str]) -> str:
    return ", ".join(f"{label}: {number}" for label, number in zip(labels, counts, strict=True))


def _recipe_of(config: GenerateConfig) -> str:
    """The recipe of yaml/ that trains on this data set, or one for its template, with what it has to be told."""
    wanted = {
        "dataset": config.dataset_name,
        "dataset_dir": str(config.dataset_dir),
        "template": config.pairs.template,
        "cutoff_len": config.pairs.cutoff_len,
    }
    recipes: dict[Path, dict[str, Any]] = {}
    for path in sorted(Path("yaml").glob("*_dpo.yaml")):
        with suppress(UserError):  # of whatever else lies there
            recipes[path] = read_settings(path)
    for key in ("dataset", "template"):
        for path, recipe in recipes.items():
            if recipe.get(key) == wanted[key]:
                changes = (f"{name}={value}" for name, value in wanted.items() if recipe.get(name) != value)
                return " ".join([str(path), *changes])
    return " ".join(["RECIPE.yaml", *(f"{name}={value}" for name, value in wanted.items())])


def print_evaluation(results: Sequence[Mapping[str, Any]], config: EvaluateConfig) -> None:
    """The end of an evaluation: a row a set, a group and for all of them; the last of `results` is its own."""
    console = stdout_console()
    metrics = results[-1]["metrics"]
    several = any(len(row["sets"]) > 1 for row in results)
    table = Table(title=f"{results[-1]['benchmark']}, percent", title_justify="left")
    for column in ("model", *(["set"] if several else []), "questions", *(_METRICS[metric] for metric in metrics)):
        table.add_column(column, justify="left" if column in ("model", "set") else "right")
    for row in results:
        name = _model_name(row)
        scopes = [*(("sets", "groups") if several else ())]
        for label, told in (item for kind in scopes for item in row[kind].items()):
            table.add_row(name, label, str(told["questions"]), *(_percent(told, metric) for metric in metrics))
            name = ""
        shown = (_percent(row, metric) for metric in metrics)
        table.add_row(name, *(["mean of the sets"] if several else []), str(row["questions"]), *shown, end_section=True)
    console.print(table)
    own = results[-1]
    console.print("Below each mean: where it lies with a confidence of 95% (bootstrap over questions).", markup=False)
    if own["unjudged"]:
        console.print(f"{own['unjudged']} answers without a readable verdict; their rows hold the judge's words.")
    if own["failed"]:
        console.print(f"{own['failed']} questions failed: {config.output_dir / 'failures.jsonl'}", markup=False)
    for advice in gold_advice(own["gold_in_every_text"]):
        console.print(advice, markup=False)
    if own["unread_answers"]:
        console.print(
            f"{own['unread_answers']} outputs give their answer in Markdown (such as **Answer**: X), where the "
            "published rule finds none.",
            markup=False,
        )
    for stage, totals in own["calls"].items():
        console.print(f"{stage}: {totals_line(StageTotals(**totals))}", markup=False)
    if own["cost"]:
        console.print(f"cost {own['cost']:,.4f}", markup=False)
    _tell_budget(console, config.max_cost, own)
    console.print(f"Predictions and results: {config.output_dir}", markup=False)


def _model_name(results: Mapping[str, Any]) -> str:
    parts = [results, *([results["against"]] if "against" in results else [])]
    return escape(" against ".join(" + ".join(filter(None, (one["model"], one["adapter"]))) for one in parts))


def _percent(results: Mapping[str, Any], metric: str) -> str:
    if results.get(metric) is None:
        return "-"
    low, high = results["intervals"][metric]
    return f"{100 * results[metric]:.1f}\n{100 * low:.1f}-{100 * high:.1f}"


def print_comparison(comparison: "Comparison") -> None:
    """The end of `longpo evaluate compare`: one row a metric and scope, in percent."""
    console = stdout_console()
    several = len({difference.scope for difference in comparison.differences}) > 1
    table = Table(title=f"{comparison.first['benchmark']}, percent", title_justify="left")
    for column in (*(["set"] if several else []), "metric"):
        table.add_column(column)
    names = [_model_name(results) for results in (comparison.first, comparison.second)]
    for column in ("questions", f"A: {names[0]}", f"B: {names[1]}", "B - A", "95% interval", ""):
        table.add_column(column, justify="right")
    scope = None
    for row in comparison.differences:
        label = [] if not several else [row.scope if row.scope != scope else ""]
        scope = row.scope
        means = (f"{100 * mean:.1f}" for mean in row.means)
        low, high = row.difference.low, row.difference.high
        sure = "higher" if low > 0 else "lower" if high < 0 else "not sure"
        span = f"{100 * low:+.1f} to {100 * high:+.1f}"
        told = _METRICS[row.metric], str(row.questions), *means
        table.add_row(*label, *told, f"{100 * row.difference.mean:+.1f}", span, sure)
    console.print(table)
    if comparison.only_one:
        console.print(
            f"{comparison.only_one} questions that only one of them answered, or that differ in text, are left out.",
            markup=False,
        )


def print_questions(outputs: Sequence[Path | None], cards: Sequence["Card"]) -> None:
    """The end of `longpo synthesize`: a line a file, and what to know about it."""
    for output, card in zip(outputs, cards, strict=False):
        lengths = f"{min(card.tokens):,} to {max(card.tokens):,} tokens"
        for line in (f"{len(card.tokens)} questions of {lengths} -> {output}", *card.remarks):
            stdout_console().print(line, markup=False)


def print_self_instruct(summary: dict[str, Any], config: "SelfInstructConfig") -> None:
    """The end of `longpo synthesize self-instruct`."""
    console = stdout_console()
    table = _table(f"self-instruct: {config.dataset_name}")
    left_out = ", ".join(f"{number} {why}" for why, number in summary["left_out"].items())
    table.add_row("documents", f"{summary['documents']}, {summary['failed']} failed; left out: {left_out or 'none'}")
    left_out = ", ".join(f"{number} {why}" for why, number in summary["questions_left_out"].items())
    table.add_row("questions", f"{summary['questions']} with answers; left out: {left_out or 'none'}")
    _add_calls(table, summary)
    table.add_row("run", escape(str(config.output_dir)))
    if summary["failed"]:
        table.add_row("failures", escape(str(config.output_dir / "failures.jsonl")))
    if summary["questions"]:
        table.add_row("data set", escape(str(config.dataset_dir / f"{config.dataset_name}.jsonl")))
    console.print(table)
    _tell_budget(console, config.max_cost, summary, "documents")
    if not summary["questions"]:
        console.print("No questions: nothing was registered.")


def print_reviewed(target: Path, told: Mapping[str, int]) -> None:
    """What became of the pairs of a reviewed data set."""
    stay = told["accept"] + told["edit"] + told["undecided"]
    line = (
        f"{stay} pairs -> {target}: {told['accept']} accepted, {told['edit']} edited, {told['undecided']} undecided; "
    )
    line += f"{told['reject']} rejected ones are left out"
    if told["gone"]:
        line += f"; {told['gone']} decisions are about pairs that are not there any more"
    stdout_console().print(line, markup=False)


def print_dropped(choice: "Choice") -> None:
    """What `longpo synthesize mix` left out."""
    for why, number in choice.dropped.items():
        stdout_console().print(f"{number} left out for their {why}", markup=False)
