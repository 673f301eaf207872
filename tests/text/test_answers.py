"""Extracting answers and scoring them, compared with the published code, and the tolerant form."""

import pytest
from reference_vectors import needs_vectors, vectors

from lf_longpo.evaluation.longqa import score
from lf_longpo.text.answers import (
    extract_answer,
    f1,
    has_unread_answer,
    is_in_every_text,
    normalize_answer,
    pair_reward,
    rollout_reward,
    sub_exact_match,
)


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
def test_answers_are_found_after_their_prefixes(prediction, answer, found):
    assert extract_answer(prediction) == (answer, found)


def test_the_two_rewards_differ_without_the_requested_format():
    assert rollout_reward("It is the Rhine.", "Rhine") == 0.5
    assert pair_reward("It is the Rhine.", "Rhine") == 0.0
    assert pair_reward("Answer: the Rhine river", ["Elbe", "Rhine"]) == pytest.approx((1 + 2 / 3) / 2)
    assert f1("a b c", "c d") == pytest.approx(2 * 0.5 * (1 / 2) / 1)  # "a" is an article
    assert sub_exact_match("rhineland", "rhine") == 1.0


@pytest.mark.parametrize(
    "output",
    [
        "**Answer**: Rhine",
        "### Answer\nRhine",
        "### Final Answer\n\nRhine",
        "**Answer**\nRhine",
        "Reasoning：…\nAnswer：Rhine",
        "Answer : Rhine",
        "`Answer`: Rhine",
        "__Answer__: Rhine",
        "答案：Rhine",
        "**答案是**：Rhine",
    ],
)
def test_labels_in_markdown_are_read_on_request_only(output):
    assert extract_answer(output)[1] is False and pair_reward(output, "Rhine") == 0.0
    assert extract_answer(output, "tolerant") == ("rhine", True) and has_unread_answer(output)
    assert pair_reward(output, "Rhine", "tolerant") == rollout_reward(output, "Rhine", "tolerant") == 1.0


@pytest.mark.parametrize(
    "output",
    ["Answer: Rhine", "**Answer:** Rhine", "No idea.", "### Answer", "The answers are many.", "", "**Answer**:"],
)
def test_other_outputs_are_read_alike_by_both_forms(output):
    assert extract_answer(output, "tolerant") == extract_answer(output) and not has_unread_answer(output)


@pytest.mark.parametrize("gold", ["A", "The", "!", ["Bern", "an"], "a the ..."])
def test_a_gold_answer_of_articles_or_marks_is_in_every_text(gold):
    assert is_in_every_text(gold) and sub_exact_match("Anything.", gold) == 1.0


def test_a_gold_answer_with_a_word_is_not():
    assert not any(map(is_in_every_text, ("B", "a B", "是", ["Bern", "Thun"], "5")))
