"""What an evaluation came to: means by set, by group and over all sets, with their intervals."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.evaluation.intervals import interval_of_mean

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"
FIELDS = ("id", "set", "digest", "sample")
"""What every row of the predictions has beside its scores."""

Scores = dict[str, float | None]


def question_scores(rows: Iterable[Mapping[str, Any]], metrics: Collection[str]) -> Scores:
    """Each metric's mean over the samples of one question that it could be told for; None where there are none."""
    samples = list(rows)
    told = {metric: [row[metric] for row in samples if row[metric] is not None] for metric in metrics}
    return {metric: sum(found) / len(found) if found else None for metric, found in told.items()}


def scope(questions: Mapping[str, Sequence[Scores]], metrics: Collection[str]) -> dict[str, Any]:
    """One row of a result.

    Args:
        questions: the scores of each question, by set.
        metrics: to tell.

    Returns:
        `questions`; each metric's mean over sets of their mean over questions, None where nothing told it; and the
        `intervals` of those.
    """
    told: dict[str, Any] = {"questions": sum(map(len, questions.values()))}
    intervals: dict[str, list[float]] = {}
    for metric in metrics:
        by_set = [[one[metric] for one in scores if one[metric] is not None] for scores in questions.values()]
        told[metric] = None
        if groups := [values for values in by_set if values]:
            interval = interval_of_mean(*groups)
            told[metric] = interval.mean
            intervals[metric] = [interval.low, interval.high]
    return told | {"intervals": intervals}


def summarise(
    scores: Mapping[str, Mapping[str, Scores]], metrics: Collection[str], groups: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """Means of an evaluation.

    Args:
        scores: of each question by id, by set.
        metrics: to tell.
        groups: sets to tell together.

    Returns:
        `scope` of all; `sets`, with one for each; and `groups`, with one for each that has sets here, and their names.
    """
    questions = {name: list(its.values()) for name, its in scores.items()}
    told = scope(questions, metrics)
    sets = {name: scope({name: its}, metrics) for name, its in questions.items()}
    present = {name: {one: questions[one] for one in its if one in questions} for name, its in groups.items()}
    told_groups = {name: {"sets": list(its)} | scope(its, metrics) for name, its in present.items() if its}
    return told | {"sets": sets, "groups": told_groups}


def load_results(folder: Path, asker: str, benchmark: str | None = None) -> dict[str, Any]:
    """The results.json of an earlier evaluation.

    Args:
        folder: its `output_dir`.
        asker: what named it, for the error.
        benchmark: what it must be of.

    Raises:
        UserError: there is none, or it is of another benchmark.
    """
    try:
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{asker}: {folder} holds no {RESULTS} that can be read ({error})") from None
    if not isinstance(results, dict) or not {
        "benchmark",
        "model",
        "metrics",
        "questions",
        "sets",
        "by_question",
    } <= set(results):
        raise UserError(f"{asker}: {folder / RESULTS} is not the result of an evaluation by this version")
    if benchmark not in (None, results["benchmark"]):
        raise UserError(f"{asker}: {folder} is a {results['benchmark']} evaluation; name a {benchmark} one")
    return results
