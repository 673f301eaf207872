"""Rewards and arms of all rollouts of a run, for its summary."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from lf_longpo.config import LongMabConfig
from lf_longpo.longmab.rollout_files import Journals
from lf_longpo.text.answers import has_unread_answer

_BINS = 5


def bandit_summary(journals: Journals, question_ids: Collection[str], settings: LongMabConfig) -> dict[str, Any]:
    """Summarises rewards and arms.

    Args:
        journals: the run's.
        question_ids: the questions that count.
        settings: the run's.

    Returns:
        `rollouts`, `mean_reward`, its mean in the first and last third of the rounds (of questions with all rounds),
        `reward_histogram` (counts in five equal bins of [0, 1]), `unread_answers` (outputs for which
        `has_unread_answer` holds), `mean_arms` per question and `mean_arms_tried`. Means are None without such
        rollouts. Those of the thirds are None with `longmab.stop`, too: which questions have all rounds then depends on
        their rewards.
    """
    histogram: Counter[int] = Counter()
    all_rewards: list[float] = []
    first: list[float] = []
    last: list[float] = []
    arms: list[int] = []
    tried: list[int] = []
    unread = 0
    rounds = settings.rounds
    third = max(rounds // 3, 1)
    for question_id in question_ids:
        rollouts = journals.finished_rounds(question_id, rounds).values()
        if not rollouts:
            continue
        for rollout in rollouts:
            all_rewards.append(rollout.reward)
            unread += has_unread_answer(rollout.output)
            histogram[min(int(rollout.reward * _BINS), _BINS - 1)] += 1
            # An interrupted run has other questions in its last rounds; their means would differ for that reason.
            complete = len(rollouts) == rounds and settings.stop is None
            if complete and rollout.round < third:
                first.append(rollout.reward)
            if complete and rollout.round >= rounds - third:
                last.append(rollout.reward)
        arms.append(len(next(iter(rollouts)).values))
        tried.append(len({arm for rollout in rollouts for arm in rollout.arms}))
    return {
        "rollouts": len(all_rewards),
        "mean_reward": _mean(all_rewards),
        "mean_reward_first_third": _mean(first),
        "mean_reward_last_third": _mean(last),
        "reward_histogram": [histogram[i] for i in range(_BINS)],
        "unread_answers": unread,
        "mean_arms": _mean(arms),
        "mean_arms_tried": _mean(tried),
    }


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
