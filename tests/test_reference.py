"""The published code's input/output vectors, where they are at hand, and a few written by hand."""

import json

import pytest
from conftest import REFERENCE

from lf_longpo.evaluation.longqa import score
from lf_longpo.longmab.bandit import UCBChunkSampler
from lf_longpo.longreward.parsing import find_rating, find_support
from lf_longpo.text.answers import extract_answer, f1, normalize_answer, pair_reward, rollout_reward, sub_exact_match
from lf_longpo.text.language import detect_language

needs_vectors = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference vectors are not beside the checkout")


def vectors(name):
    return [json.loads(line) for line in (REFERENCE / name).read_text(encoding="utf-8").splitlines()]


@needs_vectors
def test_rewards_equal_the_published_code():
    rows = vectors("longmab_rewards.jsonl")
    assert len(rows) == 400
    for row in rows:
        prediction, truth = row["prediction"], row["truth"]
        assert extract_answer(prediction) == (row["extracted"], row["has_answer"])
        assert normalize_answer(prediction) == row["normalized_prediction"]
        assert rollout_reward(prediction, truth) == pytest.approx(row["rollout_reward"], abs=1e-9)
        assert pair_reward(prediction, truth) == pytest.approx(row["pair_reward"], abs=1e-9)
        evaluated = score(prediction, [truth] if isinstance(truth, str) else truth)
        assert (evaluated["sub_em"] + evaluated["f1"]) / 2 == pytest.approx(row["pair_reward"], abs=1e-9)
        assert (evaluated["sub_em_output"] + evaluated["f1"]) / 2 == pytest.approx(row["rollout_reward"], abs=1e-9)
        assert evaluated["answered"] == row["has_answer"]


@needs_vectors
def test_bandit_equals_the_published_code():
    rows = vectors("longmab_bandit.jsonl")
    assert len(rows) == 40
    for row in rows:
        sampler = UCBChunkSampler(row["initial_values"])
        for expected, reward in zip(row["selected"], row["rewards"], strict=True):
            selected = sampler.select(row["top_k"])
            assert set(selected) == set(expected)
            sampler.update(selected, reward)
        assert sampler.values == pytest.approx(row["final_values"], abs=1e-9)
        assert sampler.counts.tolist() == row["final_counts"]


@pytest.mark.parametrize(
    ("prediction", "answer", "found"),
    [
        ("Reasoning: so. Answer: The Rhine", "the rhine", True),
        ("Answer: one\nAnswer: two", "two", True),
        ("The answer is: blue", "blue", True),
        ("final answer is: 7", "7", True),
        ("the answer is: 1. Answer: 2", "2", True),
        ("Blue.", "blue.", False),
        ("Thus Answer:", "thus answer:", False),
    ],
)
def test_answers_are_found_behind_their_prefixes(prediction, answer, found):
    assert extract_answer(prediction) == (answer, found)


def test_the_two_rewards_differ_where_the_form_slips():
    assert rollout_reward("It is the Rhine.", "Rhine") == 0.5
    assert pair_reward("It is the Rhine.", "Rhine") == 0.0
    assert pair_reward("Answer: the Rhine river", ["Elbe", "Rhine"]) == pytest.approx((1 + 2 / 3) / 2)
    assert f1("a b c", "c d") == pytest.approx(2 * 0.5 * (1 / 2) / 1)  # "a" is an article
    assert sub_exact_match("rhineland", "rhine") == 1.0


def test_bandit_takes_all_arms_where_there_are_fewer_than_top_k():
    assert UCBChunkSampler([0.3, 0.1]).select(4) == [0, 1]


def test_bandit_comes_back_to_the_arm_that_pays():
    sampler = UCBChunkSampler([0.5, 0.5, 0.5])
    for _ in range(60):
        arms = sampler.select(1)
        sampler.update(arms, 1.0 if arms == [1] else 0.0)
    assert sampler.counts.argmax() == 1


@needs_vectors
def test_parsing_equals_the_published_code():
    ratings, supports, languages = (vectors(f"longreward_{name}.jsonl") for name in ("ratings", "support", "language"))
    assert (len(ratings), len(supports), len(languages)) == (150, 120, 60)
    assert [find_rating(row["text"]) for row in ratings] == [row["rating"] for row in ratings]
    assert [find_support(row["text"]) for row in supports] == [row["support"] for row in supports]
    assert [detect_language(row["text"]) for row in languages] == [row["language"] for row in languages]
