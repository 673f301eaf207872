"""What `longpo generate` prints at its end: the results, their files and the next step."""

from collections.abc import Iterator
from typing import Any

from rich.markup import escape

from lf_longpo.cli.run_output import (
    add_calls,
    add_failures,
    histogram,
    print_advice,
    print_unfinished,
    result_table,
    score_rows,
    stdout_console,
)
from lf_longpo.config import GenerateConfig
from lf_longpo.data.review import decisions_of
from lf_longpo.report.next_step import training_recipe
from lf_longpo.report.page import REPORT
from lf_longpo.run_folder.data_set import data_set_of

_KEPT = "The registered data set {} was not changed: it has pairs that this run has not recreated."
_NOT_WRITTEN = {
    "none": "No pairs: nothing was registered.",
    "kept": f"{_KEPT} Run the same command again.",
    "removed": "No pairs: the registered data set {} was out of date and was removed.",
}
_METHODS = {"longmab": "LongMab-PO", "longreward": "LongReward"}


def print_generation(config: GenerateConfig, summary: dict[str, Any], command: str) -> None:
    """Prints the end of a generation.

    Args:
        summary: as in summary.json.
        command: as the user has typed it.
    """
    console = stdout_console()
    table = result_table(method_title(config))
    rows = _longmab_rows if config.method == "longmab" else _longreward_rows
    for row in rows(summary):
        table.add_row(*row)
    add_calls(table, summary)
    table.add_row("run", escape(str(config.output_dir)))
    table.add_row("report", escape(str(config.output_dir / REPORT)))
    add_failures(table, summary, config.output_dir)
    if summary["data_set"] == "written":
        table.add_row("data set", escape(str(data_set_of(config))))
    console.print(table)
    print_unfinished(console, config.max_cost, summary, summary["questions"], command)
    print_advice(console, config, summary)
    if gone := summary["reviewed_gone"]:
        are, decisions = "pair is" if gone == 1 else "pairs are", decisions_of(data_set_of(config))
        kept = f"The decisions stay in {decisions} and apply again if the same pairs come back."
        console.print(f"{gone} reviewed {are} no longer in the data set. {kept}", markup=False)
    if summary["unfinished"]:  # the command that resumes it is printed elsewhere
        if summary["data_set"] == "kept":
            console.print(_KEPT.format(data_set_of(config)), markup=False)
        return
    if summary["stage"] != "pairs":
        console.print(f"Stopped after the stage {summary['stage']}. Run the command with a later --stage to continue.")
    elif summary["data_set"] == "written":
        console.print(f"Next: longpo train {training_recipe(config)}", markup=False)
    else:
        console.print(_NOT_WRITTEN[summary["data_set"]].format(data_set_of(config)), markup=False)


def method_title(config: GenerateConfig) -> str:
    """The method and the data set of a generation."""
    return f"{_METHODS[config.method]}: {config.dataset_name}"


def _made(summary: dict[str, Any]) -> str:
    pairs, with_pairs, questions = (summary[name] for name in ("pairs", "questions_with_pairs", "questions"))
    if pairs == with_pairs:
        return f"{pairs} pairs from {questions} questions"
    return f"{pairs} pairs from {with_pairs} of {questions} questions"


def _longmab_rows(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        "pairs",
        f"{_made(summary)} ({summary['left_out']} probe failed, "
        f"{summary['all_equal']} no reward difference, {summary['cut_off']} too few complete responses, "
        f"{summary['failed']} failed{_unfinished(summary)})",
    )
    saved = summary["rounds_saved"]
    yield "rollouts", f"{summary['rollouts']}" + (f" ({saved} rounds saved by longmab.stop)" if saved else "")
    if summary["rollouts"]:
        yield "reward", f"mean {summary['mean_reward']:.3f}{_thirds(summary)}"
        yield "answers", f"{summary['unread_answers']} outputs have an answer only in Markdown (longmab.answer_form)"
        yield "rewards", histogram(summary["reward_histogram"], ("0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1"))
        yield "arms", f"{summary['mean_arms']:.1f} chunks per question, {summary['mean_arms_tried']:.1f} of them tried"


def _thirds(summary: dict[str, Any]) -> str:
    """The rewards of early and late rounds; empty with `longmab.stop`. An interrupted run may have no late rounds."""
    means = [summary[f"mean_reward_{third}_third"] for third in ("first", "last")]
    if means == [None, None]:
        return ""
    first, last = ("none" if mean is None else f"{mean:.3f}" for mean in means)
    return f" (first third of the rounds {first}, last third {last})"


def _unfinished(summary: dict[str, Any]) -> str:
    return f", {summary['unfinished']} unfinished" if summary["unfinished"] else ""


def _longreward_rows(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        "pairs",
        f"{_made(summary)} ({summary['all_equal']} no reward difference, "
        f"{summary['too_few_responses']} too few responses, {summary['cut_off']} too few complete responses, "
        f"{summary['failed']} failed{_unfinished(summary)})",
    )
    yield from score_rows(summary)
