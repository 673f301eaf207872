"""Racing: which responses of a question can still be its best or its worst, before all of them are checked.

The three ratings of a response take one call each, its faithfulness one for each statement. So all responses are rated,
and only those are checked that can be best or worst. The faithfulness of the others is predicted from their ratings,
with an error bound. Only scores of the same question are used, so the decisions do not depend on the order in which
replies arrive.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from lf_longpo.longreward.parsing import BEST_RATING

RATED = ("helpfulness", "logicality", "completeness")
"""The dimensions with one call each."""
CHECKED = "faithfulness"

# The spread of the ratings counts as much as this number of checked responses. Measured by scripts/racing_study.py.
_PRIOR = 2

Interval = tuple[float, float]


def next_checks(scores: Sequence[Mapping[str, float]], error: float) -> list[int]:
    """The responses to check next: the most promising one for the best, and one for the worst reward.

    Args:
        scores: the scores of each response of a question: `RATED`, and `CHECKED` where it is known.
        error: the share of predictions that may miss on either side.

    Returns:
        Positions in `scores`; empty if no further response can be best or worst.
    """
    totals = total_intervals(scores, error)
    if not totals:
        return []
    surely_best, surely_worst = max(low for low, _ in totals), min(high for _, high in totals)
    unchecked = [i for i, known in enumerate(scores) if CHECKED not in known]
    best = [i for i in unchecked if totals[i][1] >= surely_best]
    worst = [i for i in unchecked if totals[i][0] <= surely_worst]
    # Before the first check all intervals are equally wide, so that these are the highest and the lowest ratings.
    found = [max(best, key=lambda i: (totals[i][1], totals[i][0]))] if best else []
    found += [min(worst, key=lambda i: (*totals[i], -i))] if worst else []
    return sorted(set(found))


def total_intervals(scores: Sequence[Mapping[str, float]], error: float) -> list[Interval]:
    """Between which values the sum of the four dimensions of each response lies.

    The faithfulness of a response is predicted as `a + b x`. `x` is its mean rating, `b` is the slope with which one
    rating follows from the other two within the question, and `a` fits the checked responses. The width is that of a
    prediction interval (Student's t); its variance is pooled from the checked responses and from the ratings. An
    unchecked response has the interval [0, 10] before the first check.

    Args:
        scores: see `next_checks`.
        error: see `next_checks`.
    """
    means = [fmean(known[name] for name in RATED) for known in scores]
    slope, variance = _between_ratings(scores)
    offsets = [known[CHECKED] - slope * x for known, x in zip(scores, means, strict=True) if CHECKED in known]
    totals = []
    for known, x in zip(scores, means, strict=True):
        low, high = _faithfulness(known.get(CHECKED), slope * x, offsets, variance, error)
        totals.append((len(RATED) * x + low, len(RATED) * x + high))
    return totals


def _faithfulness(
    known: float | None, predicted: float, offsets: Sequence[float], variance: float, error: float
) -> Interval:
    from scipy.special import stdtrit

    if known is not None:
        return known, known
    if not offsets:
        return 0.0, BEST_RATING
    offset, freedom = fmean(offsets), _PRIOR + len(offsets) - 1
    squares = _PRIOR * variance + sum((value - offset) ** 2 for value in offsets)
    width = float(stdtrit(freedom, 1 - error)) * (squares / freedom * (1 + 1 / len(offsets))) ** 0.5
    low, high = predicted + offset - width, predicted + offset + width
    return min(max(low, 0.0), BEST_RATING), max(min(high, BEST_RATING), 0.0)


def _between_ratings(scores: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Slope, from 0 to 1, and residual variance of one rating over the mean of the other two, within the question."""
    points: list[tuple[float, float]] = []
    for name in RATED:
        others = [fmean(known[other] for other in RATED if other != name) for known in scores]
        own = [known[name] for known in scores]
        points += [(x - fmean(others), y - fmean(own)) for x, y in zip(others, own, strict=True)]
    squares = sum(x * x for x, _ in points)
    slope = min(max(sum(x * y for x, y in points) / squares, 0.0), 1.0) if squares else 0.0
    freedom = max(len(points) - len(RATED) - 1, 1)
    return slope, sum((y - slope * x) ** 2 for x, y in points) / freedom
