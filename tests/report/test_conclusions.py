"""The rules of the report's sentences, by value."""

import pytest

from lf_longpo.report import conclusions
from lf_longpo.report.comparison import reward_difference


@pytest.mark.parametrize(
    ("more", "fewer", "expected"),
    [(0, 0, False), (5, 0, False), (6, 0, True), (8, 2, False), (9, 1, True), (1, 9, True), (30, 30, False)],
)
def test_chance_is_a_two_sided_sign_test(more, fewer, expected):
    # 2 * 0.5**5 = 0.0625, 2 * 0.5**6 = 0.031, 2 * (45 + 10 + 1) / 1024 = 0.109, 2 * 11 / 1024 = 0.021
    assert conclusions.beyond_chance(more, fewer) is expected


def test_the_outcome_names_the_state():
    assert conclusions.outcome("finished", "pairs", 20, 5, 5, 0) == (
        "This run is finished: 5 of 20 questions gave a pair."
    )
    assert conclusions.outcome("interrupted", "pairs", 20, 1, 1, 12) == (
        "This run was stopped with 12 unfinished questions; 1 of 20 questions gave a pair."
    )
    assert conclusions.outcome("finished", "pairs", 20, 5, 17, 0).endswith(
        "5 of 20 questions gave a pair, 17 pairs in all."
    )
    assert conclusions.outcome("running", "", 0, 1, 1, 0).endswith("It has 1 pair so far.")
    assert "a later stage" in conclusions.outcome("finished", "rollout", 20, 0, 0, 0)


def test_failures_name_the_most_frequent_cause():
    assert conclusions.failures(0, 3, {}) is None
    assert conclusions.failures(3, 3, {"500 boom": 3}).startswith("3 of 3 questions failed: 500 boom. Fix the cause")
    assert "failed: b (the most frequent of 2 causes)." in conclusions.failures(3, 9, {"a": 1, "b": 2})
    assert conclusions.failures(1, 0, {"a": 1}).startswith("1 question failed: a.")


@pytest.mark.parametrize(
    ("lowest", "best", "advice"),
    [
        (0.93, 0.0, "93% of the responses got the reward 0: use easier questions or a stronger policy, or raise R."),
        (0.1, 0.6, "no reward difference: use harder questions, or raise R."),
        (0.3, 0.3, "no reward difference: raise R, or use harder questions."),
    ],
)
def test_questions_without_a_difference_get_advice_that_fits_their_rewards(lowest, best, advice):
    assert conclusions.no_difference(4, 20, lowest, best, "R") is None  # below MANY
    sentence = conclusions.no_difference(10, 15, lowest, best, "R")
    assert sentence.startswith("10 of 15 questions had no reward difference") and sentence.endswith(advice)


def test_failed_probes_are_said_from_a_quarter_of_the_questions_on():
    assert conclusions.failed_probes(4, 20) is None and conclusions.failed_probes(0, 0) is None
    assert conclusions.failed_probes(5, 20).startswith("The probe failed for 5 of 20 questions")


def test_the_trend_follows_the_questions_and_ties_do_not_count():
    assert conclusions.trend_of([]) == conclusions.trend_of([0.0, 0.0]) == "flat"
    assert conclusions.trend_of([0.1] * 6 + [0.0] * 50) == "rises"
    assert conclusions.trend_of([-0.1] * 6) == "falls"
    assert conclusions.trend_of([0.1] * 5) == "unclear"
    assert conclusions.trend_of([0.01] * 9 + [-1.0]) == "unclear"  # the mean falls


@pytest.mark.parametrize(
    ("differences", "first", "last", "said"),
    [
        ([0.1] * 8, 0.2, 0.3, "rises over the rounds from 0.200 to 0.300, beyond chance (higher in 8 and lower in 0"),
        ([-0.1] * 8, 0.3, 0.2, "falls over the rounds from 0.300 to 0.200, beyond chance"),
        ([-0.1] * 3, 0.3, 0.2, "falls over the rounds from 0.300 to 0.200, within chance"),
        ([0.0] * 3, 0.3, 0.3, "does not change over the rounds"),
        # Most questions rise a little and a few fall far: the mean and the sign test disagree.
        ([0.01] * 9 + [-1.0], 0.3, 0.2, "falls over the rounds from 0.300 to 0.200, within chance"),
    ],
)
def test_the_reward_trend(differences, first, last, said):
    assert conclusions.reward_trend([], 0.0, 0.0) is None
    assert said in conclusions.reward_trend(differences, first, last)


@pytest.mark.parametrize(
    ("counts", "separates", "said"),
    [
        ((9, 1, 0), True, "longer than the rejected one in 9 of 10 pairs"),
        ((1, 9, 0), True, "shorter than the rejected one in 9 of 10 pairs"),
        ((3, 0, 0), False, "3 of 3 pairs, within chance"),
        ((9, 1, 10), False, "9 of 20 pairs, beyond chance"),  # ties do not count half
        ((700, 300, 0), False, "700 of 1,000 pairs, beyond chance"),
    ],
)
def test_length_bias(counts, separates, said):
    sentence = conclusions.length_bias(*counts)
    assert said in sentence and ("length alone separates them" in sentence) is separates
    assert conclusions.length_bias(0, 0, 0) is None


def test_the_difference_of_two_runs():
    assert "differs by +0.100, beyond chance: it is higher for 9 and lower for 1" in reward_difference(9, 1, 0.1)
    assert "within chance" in reward_difference(3, 1, 0.1)
    assert "no question in common" in reward_difference(0, 0, 0.0)
