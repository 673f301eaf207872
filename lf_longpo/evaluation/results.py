"""The results of an evaluation: means by set, by group and over all sets, with their intervals."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.evaluation.intervals import interval_of_mean

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"
FIELDS = ("id", "set", "digest", "sample")
"""The fields of every row of predictions, in addition to its scores."""

Scores = dict[str, float | None]


def question_scores(rows: Iterable[Mapping[str, Any]], metrics: Collection[str]) -> Scores:
    """The mean of each metric over the samples of a question that have it; None if no sample has it."""
    samples = list(rows)
    known = {metric: [row[metric] for row in samples if row[metric] is not None] for metric in metrics}
    return {metric: sum(values) / len(values) if values else None for metric, values in known.items()}


def scope(questions: Mapping[str, Sequence[Scores]], metrics: Collection[str]) -> dict[str, Any]:
    """The means over some sets.

    Args:
        questions: the scores of each question, by set.
        metrics: the metrics to report.

    Returns:
        `questions`, their number; for each metric, the mean of the sets' means over questions, None if no question has
        it; and `intervals`, those of the means.
    """
    row: dict[str, Any] = {"questions": sum(map(len, questions.values()))}
    intervals: dict[str, list[float]] = {}
    for metric in metrics:
        by_set = [[value for score in scores if (value := score[metric]) is not None] for scores in questions.values()]
        row[metric] = None
        if groups := [values for values in by_set if values]:
            interval = interval_of_mean(*groups)
            row[metric] = interval.mean
            intervals[metric] = [interval.low, interval.high]
    return row | {"intervals": intervals}


def summarise(
    scores: Mapping[str, Mapping[str, Scores]], metrics: Collection[str], groups: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """The means of an evaluation.

    Args:
        scores: the scores of each question, by set and id.
        metrics: the metrics to report.
        groups: names of sets, by group.

    Returns:
        The `scope` of all sets; `sets`, the scope of each; and `groups`, the scope of each group that has sets here,
        with their names.
    """
    questions = {name: list(by_id.values()) for name, by_id in scores.items()}
    sets = {name: scope({name: rows}, metrics) for name, rows in questions.items()}
    members = {group: {name: questions[name] for name in names if name in questions} for group, names in groups.items()}
    scopes = {group: {"sets": list(present)} | scope(present, metrics) for group, present in members.items() if present}
    return scope(questions, metrics) | {"sets": sets, "groups": scopes}


def load_results(folder: Path, asker: str, benchmark: str | None = None) -> dict[str, Any]:
    """The results.json of an earlier evaluation.

    Args:
        folder: the evaluation's `output_dir`.
        asker: the setting or command that names it, for the error.
        benchmark: the benchmark that it must be of; None for any.

    Raises:
        UserError: the folder has no results, or those of another benchmark.
    """
    try:
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{asker}: {folder} holds no {RESULTS} that can be read ({error}); name the output_dir of an evaluation"
        ) from None
    if not isinstance(results, dict) or not {
        "benchmark",
        "model",
        "metrics",
        "questions",
        "sets",
        "by_question",
    } <= set(results):
        raise UserError(
            f"{asker}: {folder / RESULTS} is not the result of an evaluation by this version; run the evaluation again"
        )
    if benchmark not in (None, results["benchmark"]):
        raise UserError(f"{asker}: {folder} is a {results['benchmark']} evaluation; name a {benchmark} one")
    return results
