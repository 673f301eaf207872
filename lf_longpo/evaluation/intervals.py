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


def interval_of_mean(values: Sequence[float]) -> Interval:
    """The mean and its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13), the same every time.

    Args:
        values: one a question; for a comparison the differences of the two scores of each question.

    Raises:
        ValueError: there are none.
    """
    from scipy.stats import bootstrap

    if not values:
        raise ValueError("no values")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Interval(mean, float(found.confidence_interval.low), float(found.confidence_interval.high))
