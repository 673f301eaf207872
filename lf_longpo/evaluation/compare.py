"""`longpo evaluate compare`: the differences between two evaluations, question by question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.evaluation.intervals import Interval, interval_of_mean
from lf_longpo.evaluation.results import Scores, load_results

ALL = "all"


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference in a metric, over the questions of a scope that have it in both evaluations."""

    scope: str
    """A set, a group of sets, or `ALL`."""
    metric: str
    questions: int
    means: tuple[float, float]
    """The means of the first and the second evaluation."""
    difference: Interval
    """Second minus first."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between two evaluations."""

    first: Mapping[str, Any]
    """The results of the first evaluation."""
    second: Mapping[str, Any]
    """The results of the second evaluation."""
    questions: int
    """Questions that are in both."""
    only_one: int
    """Questions that are in one of them, or have another text in the other; they are not compared."""
    differences: list[Difference]


def compare(first: Path, second: Path) -> Comparison:
    """Compares the evaluations in two folders.

    Args:
        first: `output_dir` of an evaluation, such as that of the untrained model.
        second: `output_dir` of the other.

    Raises:
        UserError: a folder has no evaluation, the two were scored differently, or they have no question in common.
    """
    before = load_results(first, "compare")
    after = load_results(second, "compare", before["benchmark"])
    for who in ("judge", "against"):
        if before.get(who) != after.get(who):
            raise UserError(
                f"compare: {who} was {before.get(who)!r} in {first} and {after.get(who)!r} in {second}; evaluate both "
                "with the same one"
            )
    sets = {name: _common(scores, after["by_question"].get(name, {})) for name, scores in before["by_question"].items()}
    sets = {name: pairs for name, pairs in sets.items() if pairs}
    if not sets:
        raise UserError(f"compare: {first} and {second} have no question in common; evaluate both on the same input")
    scopes = {ALL: sets}
    if len(sets) > 1:
        scopes |= {name: {name: pairs} for name, pairs in sets.items()}
        groups = {
            name: {member: sets[member] for member in group["sets"] if member in sets}
            for name, group in before["groups"].items()
        }
        scopes |= {name: members for name, members in groups.items() if members}
    metrics = [metric for metric in before["metrics"] if metric in after["metrics"]]
    differences = [_difference(scope, metric, members) for scope, members in scopes.items() for metric in metrics]
    number = sum(map(len, sets.values()))
    either = sum(len(scores) for results in (before, after) for scores in results["by_question"].values())
    return Comparison(before, after, number, either - 2 * number, [found for found in differences if found])


def _common(first: Mapping[str, Scores], second: Mapping[str, Scores]) -> list[tuple[Scores, Scores]]:
    """Scores of the questions that both have with the same id and the same text."""
    return [
        (scores, second[id])
        for id, scores in first.items()
        if id in second and second[id]["digest"] == scores["digest"]
    ]


def _difference(scope: str, metric: str, sets: Mapping[str, Sequence[tuple[Scores, Scores]]]) -> Difference | None:
    by_set = []
    for pairs in sets.values():
        values = [(first[metric], second[metric]) for first, second in pairs]
        if known := [(first, second) for first, second in values if first is not None and second is not None]:
            by_set.append(known)
    if not by_set:
        return None
    first_mean, second_mean = (
        sum(sum(pair[i] for pair in pairs) / len(pairs) for pairs in by_set) / len(by_set) for i in (0, 1)
    )
    difference = interval_of_mean(*([second - first for first, second in pairs] for pairs in by_set))
    return Difference(scope, metric, sum(map(len, by_set)), (first_mean, second_mean), difference)
