"""Confidence intervals of means over questions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_CONFIDENCE = 0.95
_RESAMPLES = 9_999
_BATCH = 100  # resamples at a time; bounds the memory


class Interval(NamedTuple):
    """A mean with its 95% confidence interval."""

    mean: float
    low: float
    high: float


def interval_of_mean(*sets: Sequence[float]) -> Interval:
    """The mean and its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13), with a fixed seed.

    Args:
        sets: a value per question, by set; for a comparison, the differences of the scores. The mean is that of the
            sets' means; questions are resampled within each set.

    Raises:
        ValueError: a set is empty, or there are no sets.
    """
    from scipy.stats import bootstrap

    if not sets or not all(sets):
        raise ValueError("no values")
    mean = float(np.mean([np.mean(values) for values in sets]))
    if all(len(values) == 1 for values in sets):
        return Interval(mean, mean, mean)
    # scipy refuses a set of one question; its value twice gives the same interval.
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
    means: np.ndarray = np.mean([values.mean(axis=axis) for values in sets], axis=0)
    return means
