"""A thought is kept apart from the answer, in every form in which it comes."""

import pytest

from lf_longpo.text.answers import rollout_reward
from lf_longpo.text.thinking import MARKS, Reply, split_thought


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_a_thought_between_marks(opening, closing):
    text = f"\n{opening}\nIt may be 1931 or 1932.\n{closing}\n\nAnswer: 1932"
    assert split_thought(text) == Reply("It may be 1931 or 1932.", "Answer: 1932")


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_a_template_that_opens_the_thought_leaves_only_the_closing_mark(opening, closing):
    assert split_thought(f"It may be 1931.{closing}\nAnswer: 1932") == Reply("It may be 1931.", "Answer: 1932")


@pytest.mark.parametrize(
    ("text", "reply"),
    (
        ("<think>\n\n</think>\n\nAnswer: 1932", Reply("", "Answer: 1932")),  # thinking is off
        ("<think>So [[2]], or rather", Reply("So [[2]], or rather", "")),  # cut off
        ("<think>So [[2]].</think>", Reply("So [[2]].", "")),
        ("Answer: 1932", Reply("", "Answer: 1932")),
        ("", Reply("", "")),
        # About marks, in an answer:
        ("The tags are <think> and </think>.", Reply("", "The tags are <think> and </think>.")),
        ("<think>Tags?</think>They are <think> and </think>.", Reply("Tags?", "They are <think> and </think>.")),
        (
            "<|channel|>analysis<|message|>So.<|end|><|start|>assistant<|channel|>final<|message|>1932",
            Reply("So.", "1932"),
        ),
    ),
)
def test_what_is_a_thought_and_what_is_text(text, reply):
    assert split_thought(text) == reply


def test_a_thought_that_the_template_opened_and_that_was_cut_off():
    assert split_thought("It may be 1931 or", opened=True) == Reply("It may be 1931 or", "")
    assert split_thought("It was.</think>1932", opened=True) == Reply("It was.", "1932")


def test_the_reward_is_the_answers():
    text = "<think>It may be 1931 or 1932.</think>\nAnswer: 1932"
    assert rollout_reward(split_thought(text).answer, ["1931"]) == 0.0
    assert rollout_reward(split_thought(text).answer, ["1932"]) == 1.0
