"""The multi-armed bandit whose arms are the chunks of one context (LongMab-PO, arXiv 2508.13993, section 3.2).

Upper-confidence-bound selection: chunks that led to good answers are selected again; chunks that were rarely tried get
a bonus, which shrinks as they are tried.
"""

import random
from collections.abc import Sequence

import numpy as np

# Keeps the bonus of an arm that was never pulled finite, and far above the bonus of every other arm.
_COUNT_EPSILON = 1e-6
# The prior of `LinearChunkSampler`, on the scale of rewards: the effect of an arm, the reward without effects, and the
# noise of a reward. scripts/bandit_study.py compares them with other values.
_EFFECT_DEVIATION = 0.3
_INTERCEPT_MEAN, _INTERCEPT_DEVIATION = 0.1, 0.5
_REWARD_DEVIATION = 0.5


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


class LinearChunkSampler:
    """Credit by chunk: a Bayesian linear model of the reward over the arms of a round (LinUCB, arXiv 1003.0146).

    A pair needs a right and a wrong answer. So the arms with the highest bound are selected, except while there is a
    right answer (reward 1) and no wrong one (reward 0): then those with the lowest bound.

    Args:
        initial_values: one value per arm; their differences are the means of the arms' prior effects.
    """

    def __init__(self, initial_values: Sequence[float]) -> None:
        values = np.array(initial_values, dtype=np.float64)
        # The last coefficient is the reward that does not depend on the arms.
        self._means = np.append(values - values.mean(), _INTERCEPT_MEAN)
        self._covariance = np.diag(np.append(np.full(len(values), _EFFECT_DEVIATION**2), _INTERCEPT_DEVIATION**2))
        self._rewards: list[float] = []

    @property
    def values(self) -> np.ndarray:
        """The expected effect of each arm on the reward."""
        return self._means[:-1]

    def select(self, top_k: int) -> list[int]:
        """The `top_k` arms of the next round, in arm order; all of them where there are fewer.

        In round t (from 1) the bound of arm i is mean_i ± deviation_i * sqrt(ln(t + 1)), of its effect.
        """
        width = np.sqrt(np.diag(self._covariance)[:-1] * np.log(len(self._rewards) + 2))
        lacks_wrong = bool(self._rewards) and max(self._rewards) >= 1.0 and min(self._rewards) > 0.0
        best_first = np.argsort(self.values - width if lacks_wrong else -(self.values + width), kind="stable")
        return sorted(best_first[:top_k].tolist())

    def update(self, selected: Sequence[int], reward: float) -> None:
        """Updates the model with the reward of a round."""
        shown = np.zeros(len(self._means))
        shown[[*selected, -1]] = 1.0
        spread = self._covariance @ shown
        gain = spread / (shown @ spread + _REWARD_DEVIATION**2)
        self._means = self._means + gain * (reward - shown @ self._means)
        self._covariance = self._covariance - np.outer(gain, spread)
        self._rewards.append(reward)


class RandomChunkSampler:
    """The baseline of the bandit: `top_k` arms drawn at random, whatever the rewards.

    Args:
        initial_values: one value per arm; they do not change.
        seed: determines the arms of all rounds.
    """

    def __init__(self, initial_values: Sequence[float], seed: str) -> None:
        self.values = np.array(initial_values, dtype=np.float64)
        self._draw = random.Random(f"{seed}/chunks")

    def select(self, top_k: int) -> list[int]:
        """The arms of the next round, in arm order; all of them where there are fewer than `top_k`."""
        number = len(self.values)
        return sorted(self._draw.sample(range(number), min(top_k, number)))

    def update(self, selected: Sequence[int], reward: float) -> None:
        """Learns nothing."""
