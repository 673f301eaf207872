"""Means and spread of all scores of a run, for its summary."""

from collections import Counter
from collections.abc import Collection
from typing import Any

from lf_longpo.longreward.parsing import BEST_RATING
from lf_longpo.longreward.response_files import Files
from lf_longpo.longreward.scorer import DIMENSIONS

_BINS = 5


def score_summary(files: Files, question_ids: Collection[str]) -> dict[str, Any]:
    """Means and spread of all scored responses.

    Args:
        files: the run's.
        question_ids: the questions that count.

    Returns:
        `scored` responses, `mean_scores` by dimension, `mean_reward`, and `reward_histogram` (counts in five equal
        bins of [0, 10]). Means are None without responses.
    """
    sums: dict[str, float] = dict.fromkeys(DIMENSIONS, 0.0)
    rewards = 0.0
    scored = 0
    histogram: Counter[int] = Counter()
    for id in question_ids:
        for row in files.scores(id).values():
            scored += 1
            rewards += row["reward"]
            histogram[min(int(row["reward"] / BEST_RATING * _BINS), _BINS - 1)] += 1
            for dimension in DIMENSIONS:
                sums[dimension] += row["scores"][dimension]
    return {
        "scored": scored,
        "mean_scores": {dimension: sums[dimension] / scored if scored else None for dimension in DIMENSIONS},
        "mean_reward": rewards / scored if scored else None,
        "reward_histogram": [histogram[i] for i in range(_BINS)],
    }
