"""`longpo evaluate compare`: two evaluations of the same questions, question by question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.evaluation.intervals import Interval, interval_of_mean
from lf_longpo.evaluation.results import Scores, load_results, load_scores

ALL = "all"


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric over the questions of one scope that both evaluations told it for."""

    scope: str
    """A set, or `ALL` of them."""
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
    """That one of them did not answer, or was not asked; they are left out."""
    differences: list[Difference]


def compare(first: Path, second: Path) -> Comparison:
    """Compares the evaluations in two folders.

    Args:
        first: `output_dir` of one, such as the untrained model's.
        second: of the other.

    Raises:
        UserError: one holds no evaluation, they are of different benchmarks, or they have no question in common.
    """
    results = [load_results(first, "compare")]
    results.append(load_results(second, "compare", results[0]["benchmark"]))
    metrics = [metric for metric in results[0]["metrics"] if metric in results[1]["metrics"]]
    before, after = (load_scores(folder, metrics) for folder in (first, second))
    sets = {name: [id for id in before[name] if id in after.get(name, {})] for name in before}
    common = {name: ids for name, ids in sets.items() if ids}
    if not common:
        raise UserError(f"compare: {first} and {second} have no question in common; evaluate both on the same input")
    number = sum(map(len, common.values()))
    pairs = {name: [(before[name][id], after[name][id]) for id in ids] for name, ids in common.items()}
    scopes = {ALL: pairs} if len(pairs) == 1 else {ALL: pairs, **{name: {name: its} for name, its in pairs.items()}}
    found = [_difference(scope, metric, its) for scope, its in scopes.items() for metric in metrics]
    either = sum(len(its) for scores in (before, after) for its in scores.values())
    return Comparison(*results, number, either - 2 * number, [one for one in found if one])


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
