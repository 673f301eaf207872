"""A model's thought and its answer: two parts of one reply, of which only the second is scored.

Servers either report the thought in a field of its own or leave it in the text, between two marks. Some chat templates
open the thought in the prompt, so that a reply holds the closing mark only.
"""

from typing import NamedTuple

# Opening and closing marks, as the models write them:
MARKS = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, GLM-4.5 and later, and most others
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi-VL-Thinking
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<|channel>thought\n", "<channel|>"),  # Gemma 4
    ("<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>final<|message|>"),  # gpt-oss
)
# What may stand between the end of a thought and the next mark.
_ENDINGS = ("<|end|>",)


class Reply(NamedTuple):
    """A reply in its two parts."""

    thought: str
    """Without its marks and surrounding white space; empty where the model did not think."""
    answer: str
    """What follows the thought; empty where the thought did not end."""


def split_thought(text: str, opened: bool = False) -> Reply:
    """Separates the thought from the answer.

    A thought counts where the reply begins with an opening mark, or holds a closing mark that no opening mark
    precedes. Marks later in an answer (which may be about such marks) are text.

    Args:
        text: the reply as it came.
        opened: whether the prompt already holds the opening mark, so that a reply without any mark is a thought that
            did not end.
    """
    begun = text.lstrip()
    for opening, closing in MARKS:
        if begun.startswith(opening):
            thought, _, answer = begun.removeprefix(opening).partition(closing)
            return _reply(thought, answer)
    for opening, closing in MARKS:
        thought, found, answer = text.partition(closing)
        if found and opening not in thought:
            return _reply(thought, answer)
    return _reply(text, "") if opened else Reply("", text)


def opening_at_end(prompt: str) -> str:
    """The opening mark that a rendered prompt ends with; empty if it ends with none."""
    end = prompt.rstrip()
    return next((opening for opening, _ in MARKS if end.endswith(opening.rstrip())), "")


def opens_thought(text: str) -> bool:
    """Whether a reply begins with an opening mark."""
    return text.lstrip().startswith(tuple(opening for opening, _ in MARKS))


def _reply(thought: str, answer: str) -> Reply:
    thought = thought.strip()
    for ending in _ENDINGS:
        thought = thought.removesuffix(ending)
    return Reply(thought.strip(), answer.lstrip())
