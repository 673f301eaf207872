"""`longpo evaluate compare`: two evaluations of the same questions, question by question."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.evaluation.intervals import Interval, interval_of_mean
from lf_longpo.evaluation.longqa import METRICS, PREDICTIONS, load_results, means
from lf_longpo.journal import read_rows

_ROW = ("sample", *METRICS)


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
    means: dict[str, tuple[float, float]]
    """By metric, of the first and the second evaluation over the questions of both."""
    differences: dict[str, Interval]
    """By metric, second minus first, over questions."""


def compare(first: Path, second: Path) -> Comparison:
    """Compares the evaluations in two folders.

    Args:
        first: `output_dir` of one, such as the untrained model's.
        second: of the other.

    Raises:
        UserError: one holds no evaluation, or they have no question in common.
    """
    results = [load_results(folder, "compare") for folder in (first, second)]
    before, after = (_by_question(folder) for folder in (first, second))
    common = [id for id in before if id in after]
    if not common:
        raise UserError(f"compare: {first} and {second} have no question in common; evaluate both on the same input")
    both, differences = {}, {}
    for metric in METRICS:
        pairs = [(before[id][metric], after[id][metric]) for id in common]
        both[metric] = (sum(one for one, _ in pairs) / len(pairs), sum(two for _, two in pairs) / len(pairs))
        differences[metric] = interval_of_mean([two - one for one, two in pairs])
    return Comparison(*results, len(common), len(before.keys() ^ after.keys()), both, differences)


def _by_question(folder: Path) -> dict[str, dict[str, float]]:
    """Each question's scores, means over its samples."""
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for row in read_rows(folder / PREDICTIONS, _ROW):
        rows.setdefault(row["id"], {})[row["sample"]] = row
    return {id: means(list(samples.values())) for id, samples in rows.items()}
