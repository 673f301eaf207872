"""The multi-armed bandit whose arms are the chunks of one context (LongMab-PO, arXiv 2508.13993, section 3.2).

Upper-confidence-bound selection: chunks that led to good answers are selected again; chunks that were rarely tried get
a bonus, which shrinks as they are tried.
"""

import random
from collections.abc import Sequence

import numpy as np

# Keeps the bonus of an arm that was never pulled finite, and far above the bonus of every other arm.
_COUNT_EPSILON = 1e-6


class UCBChunkSampler:
    """Selects `top_k` arms per round and learns from the reward that they share.

    Args:
        initial_values: one value per arm, in the rewards' range [0, 1] or a cosine similarity; it counts as one
            observation of the arm.
    """

    def __init__(self, initial_values: Sequence[float]) -> None:
        self.values = np.array(initial_values, dtype=np.float64)
        self.counts = np.zeros(len(self.values), dtype=np.int64)
        self.round = 0

    def select(self, top_k: int) -> list[int]:
        """The `top_k` arms with the highest bound, in arm order; all of them where there are fewer.

        In round t (from 1) arm i scores value_i + sqrt(2 ln t / n_i). Equal scores go to the lower arm. Each call
        begins the next round.
        """
        self.round += 1
        bonus = np.sqrt(2.0 * np.log(self.round) / (self.counts + _COUNT_EPSILON))
        best_first = np.argsort(-(self.values + bonus), kind="stable")
        return sorted(best_first[:top_k].tolist())

    def update(self, selected: Sequence[int], reward: float) -> None:
        """Moves each selected arm's value towards `reward`: n += 1, value += (reward - value) / (n + 1)."""
        arms = list(selected)
        self.counts[arms] += 1
        self.values[arms] += (reward - self.values[arms]) / (self.counts[arms] + 1)


def random_arms(number: int, top_k: int, rounds: int, seed: str) -> list[list[int]]:
    """The baseline of the bandit: for each round, `top_k` of `number` arms drawn at random.

    The arms of a round are in arm order; they are all arms where there are no more than `top_k`.
    """
    draw = random.Random(f"{seed}/chunks")
    return [sorted(draw.sample(range(number), min(top_k, number))) for _ in range(rounds)]
