"""Which responses become pairs, by value."""

from itertools import pairwise

import pytest

from lf_longpo.config import PairsConfig
from lf_longpo.data.pair_choice import choose_pairs
from lf_longpo.data.records import ScoredResponse

WORDS = "amber birch cedar delta ember fjord grove heath inlet".split()


def chosen(rewards, settings, best=None, worst=None, texts=WORDS):
    responses = [ScoredResponse(text, reward, i) for i, (text, reward) in enumerate(zip(texts, rewards, strict=False))]
    best = rewards.index(max(rewards)) if best is None else best
    worst = len(rewards) - 1 - rewards[::-1].index(min(rewards)) if worst is None else worst
    pairs = choose_pairs(responses, best, worst, PairsConfig(template="llama3", **settings))
    return [(good.index, bad.index) for good, bad in pairs]


BY_GAP = [(1, 4), (3, 4), (1, 2), (0, 4), (3, 2), (0, 2), (1, 0), (2, 4)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [(1, 4)]),
        ({"min_gap": 9.0}, [(1, 4)]),
        ({"min_gap": 9.1}, []),
        ({"choose": "all"}, [(1, 4)]),
        ({"per_question": 2}, [(1, 4), (3, 2)]),
        ({"per_question": 9}, [(1, 4), (3, 2)]),  # the middle response has no partner
        ({"per_question": 9, "min_gap": 7.0}, [(1, 4)]),
        ({"per_question": 9, "choose": "extremes"}, [(1, 4)]),
        ({"per_question": 4, "choose": "all"}, BY_GAP[:4]),
        ({"per_question": 99, "choose": "all", "min_gap": 6.5}, BY_GAP[:5]),
        ({"per_question": 99, "choose": "all", "min_gap": 1.1}, BY_GAP),
    ],
)
def test_pairs_of_five_responses(settings, expected):
    # The gaps of BY_GAP: 9, 8, 7.5, 7, 6.5, 5.5, 2, 1.5; two more are 1.
    assert chosen([8.0, 10.0, 2.5, 9.0, 1.0], settings) == expected


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        ("extremes", [(2, 4), (0, 3), (5, 1)]),
        ("ranked", [(2, 4), (0, 3), (5, 1)]),
        ("all", [(2, 4), (0, 4), (2, 3), (0, 3), (2, 1), (5, 4), (0, 1), (5, 3), (5, 1)]),
    ],
)
def test_equal_rewards_give_no_pair_and_the_methods_own_pair_is_the_first(choose, expected):
    rewards = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    found = chosen(rewards, {"per_question": 20, "choose": choose}, best=2, worst=4)
    assert found[0] == (2, 4) and sorted(found) == sorted(expected)
    assert all(rewards[good] > rewards[bad] for good, bad in found)


@pytest.mark.parametrize("choose", ["extremes", "ranked", "all"])
def test_more_pairs_follow_and_none_changes(choose):
    rewards = [3.0, 1.0, 3.0, 2.0, 1.0, 2.5, 1.0, 3.0]
    found = [chosen(rewards, {"per_question": number, "choose": choose}) for number in range(1, 12)]
    for fewer, more in pairwise(found):
        assert more[: len(fewer)] == fewer and len(set(more)) == len(more)


def test_near_repeats_give_no_further_pair():
    texts = ["The lamp is lit.", "It is dark.", "the lamp is lit", "So dark!", "it is dark"]
    rewards = [9.0, 1.0, 8.0, 3.0, 2.0]
    assert chosen(rewards, {"per_question": 9, "choose": "all"}, texts=texts) == [(0, 1), (0, 3), (3, 1)]
    assert chosen(rewards, {}, texts=["Same."] * 5) == [(0, 1)]  # as published
