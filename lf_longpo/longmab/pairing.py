"""Which of a question's rollouts become chosen and rejected (LongMab-PO, arXiv 2508.13993, section 3.3)."""

import random
from collections.abc import Sequence


def best_and_worst(question_id: str, rewards: Sequence[float], seed: int) -> tuple[int, int] | None:
    """Positions of one of the best and one of the worst pair rewards.

    Ties are broken by `seed` and the question's id. None where all rewards are equal.
    """
    best, worst = max(rewards), min(rewards)
    if best == worst:
        return None
    draw = random.Random(f"{seed}/pairs/{question_id}")
    chosen = draw.choice([position for position, reward in enumerate(rewards) if reward == best])
    rejected = draw.choice([position for position, reward in enumerate(rewards) if reward == worst])
    return chosen, rejected
