"""Which of a question's responses become chosen and rejected (LongReward, arXiv 2410.21252, section 3.5)."""

from collections.abc import Sequence


def best_and_worst(rewards: Sequence[float]) -> tuple[int, int] | None:
    """Positions of the best and the worst reward: the first of several best, the last of several worst.

    None where all rewards are equal.
    """
    best, worst = max(rewards), min(rewards)
    if best == worst:
        return None
    return rewards.index(best), len(rewards) - 1 - list(reversed(rewards)).index(worst)
