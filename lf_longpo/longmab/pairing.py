"""Which of a question's rollouts become chosen and rejected (LongMab-PO, arXiv 2508.13993, section 3.3)."""

import random
from collections.abc import Sequence

from lf_longpo.data.records import Rollout
from lf_longpo.text.answers import AnswerForm, pair_reward


def best_and_worst(
    question_id: str, rollouts: Sequence[Rollout], answers: Sequence[str], seed: int, form: AnswerForm = "published"
) -> tuple[Rollout, Rollout, float, float] | None:
    """One of the best and one of the worst rollouts by pair reward, with their rewards.

    Ties are broken by `seed` and the question's id. None where all rewards are equal.
    """
    rewards = [pair_reward(rollout.output, answers, form) for rollout in rollouts]
    best, worst = max(rewards), min(rewards)
    if best == worst:
        return None
    draw = random.Random(f"{seed}/pairs/{question_id}")
    chosen = draw.choice([rollout for rollout, reward in zip(rollouts, rewards, strict=True) if reward == best])
    rejected = draw.choice([rollout for rollout, reward in zip(rollouts, rewards, strict=True) if reward == worst])
    return chosen, rejected, best, worst
