"""`longpo evaluate compare`: two evaluations of the same questions, question by question."""

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
    """One metric over the questions of one scope that both evaluations told it for."""

    scope: str
    """A set, a group of them, or `ALL`."""
    metric: str
    questions: int
    means: tuple[float, float]
    """Of the first and the second evaluation."""
    difference: Interval
    """Second minus first."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became better or worse."""

    first: Mapping[str, Any]
    """Results of the first evaluation."""
    second: Mapping[str, Any]
    questions: int
    """That both answered."""
    only_one: int
    """That one of them did not answer, or that have another text; they are left out."""
    differences: list[Difference]


def compare(first: Path, second: Path) -> Comparison:
    """Compares the evaluations in two folders.

    Args:
        first: `output_dir` of one, such as the untrained model's.
        second: of the other.

    Raises:
        UserError: one holds no evaluation, they were not scored alike, or they have no question in common.
    """
    before = load_results(first, "compare")
    after = load_results(second, "compare", before["benchmark"])
    for who in ("judge", "against"):
        if before.get(who) != after.get(who):
            raise UserError(
                f"compare: {who} was {before.get(who)!r} in {first} and {after.get(who)!r} in {second}; evaluate both "
                "alike"
            )
    sets = {name: _common(its, after["by_question"].get(name, {})) for name, its in before["by_question"].items()}
    sets = {name: pairs for name, pairs in sets.items() if pairs}
    if not sets:
        raise UserError(f"compare: {first} and {second} have no question in common; evaluate both on the same input")
    scopes = {ALL: sets}
    if len(sets) > 1:
        scopes |= {name: {name: pairs} for name, pairs in sets.items()}
        groups = {name: [one for one in its["sets"] if one in sets] for name, its in before["groups"].items()}
        scopes |= {name: {one: sets[one] for one in its} for name, its in groups.items() if its}
    metrics = [metric for metric in before["metrics"] if metric in after["metrics"]]
    found = [_difference(scope, metric, its) for scope, its in scopes.items() for metric in metrics]
    number = sum(map(len, sets.values()))
    either = sum(len(its) for one in (before, after) for its in one["by_question"].values())
    return Comparison(before, after, number, either - 2 * number, [one for one in found if one])


def _common(first: Mapping[str, Scores], second: Mapping[str, Scores]) -> list[tuple[Scores, Scores]]:
    """Scores of the questions that both have, by their text and not by their id alone."""
    return [(its, second[id]) for id, its in first.items() if id in second and second[id]["digest"] == its["digest"]]


def _difference(scope: str, metric: str, sets: Mapping[str, Sequence[tuple[Scores, Scores]]]) -> Difference | None:
    told = [
        [(one[metric], two[metric]) for one, two in pairs if None not in (one[metric], two[metric])]
        for pairs in sets.values()
    ]
    told = [pairs for pairs in told if pairs]
    if not told:
        return None
    means = tuple(sum(sum(pair[which] for pair in its) / len(its) for its in told) / len(told) for which in (0, 1))
    difference = interval_of_mean(*([two - one for one, two in its] for its in told))
    return Difference(scope, metric, sum(map(len, told)), means, difference)
