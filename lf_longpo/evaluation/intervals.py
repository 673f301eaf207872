"""How far a mean over questions may be from what more questions would give."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_CONFIDENCE = 0.95
_RESAMPLES = 9_999
_BATCH = 100  # resamples at once, which bounds the memory


class Interval(NamedTuple):
    """Where a mean lies with a confidence of 95%."""

    mean: float
    low: float
    high: float


def interval_of_mean(*sets: Sequence[float]) -> Interval:
    """The mean and its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13), the same every time.

    Args:
        sets: one value a question; for a comparison the differences of the two scores of each question. Of several sets
            the mean of their means is told; questions are drawn anew within each.

    Raises:
        ValueError: a set is empty, or there is none.
    """
    from scipy.stats import bootstrap

    if not sets or not all(sets):
        raise ValueError("no values")
    mean = float(np.mean([np.mean(values) for values in sets]))
    if all(len(values) == 1 for values in sets):
        return Interval(mean, mean, mean)
    # A set of one question has nothing to draw from, which scipy refuses; drawn from two of the same it stays.
    drawn = tuple(np.asarray([*values] * (2 if len(values) == 1 else 1), dtype=float) for values in sets)
    found = bootstrap(
        drawn,
        _mean_of_means,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        vectorized=True,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Interval(mean, float(found.confidence_interval.low), float(found.confidence_interval.high))


def _mean_of_means(*sets: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean([values.mean(axis=axis) for values in sets], axis=0)
