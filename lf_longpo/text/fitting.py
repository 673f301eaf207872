"""Cutting the middle of a context so that the whole prompt fits a token budget.

LLaMA-Factory and servers cut the end of a prompt that is too long; the question and the instructions are there. These
functions cut only the context. The caller measures the finished prompt, with its chat template or with LLaMA-Factory's
encoding.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lf_longpo.errors import TextTooLong
from lf_longpo.text.chunking import token_starts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CUT_MARK = "\n...\n"
"""Replaces the middle that was cut, so that the cut is visible."""


def cut_middle(context: str, tokenizer: "PreTrainedTokenizerBase", measure: Callable[[str], int], limit: int) -> str:
    """Cuts the middle of a context so that the prompt has at most `limit` tokens.

    Args:
        context: the text to cut.
        tokenizer: a fast tokenizer; its tokens are removed.
        measure: returns the number of tokens of the prompt with a given context.
        limit: the budget in tokens.

    Returns:
        `context` if it fits; else its start and its end, about equally long, around `CUT_MARK`.

    Raises:
        TextTooLong: the prompt exceeds the limit even without a context.
    """
    length = measure(context)
    if length <= limit:
        return context
    bare = measure("")
    if bare > limit:
        raise TextTooLong(f"question and instructions take {bare} tokens, the limit is {limit}")
    starts = token_starts(context, tokenizer)
    keep = len(starts) - (length - limit)
    while keep > 0:
        cut = without_middle(context, starts, keep)
        # The mark adds tokens, and tokens can differ where texts meet: only measuring the prompt gives the number.
        excess = measure(cut) - limit
        if excess <= 0:
            return cut
        keep -= excess
    return ""


def without_middle(text: str, starts: Sequence[int], keep: int) -> str:
    """The start and the end of a text, about equally long, around `CUT_MARK`.

    Args:
        text: the text to cut.
        starts: the positions of its tokens, see `token_starts`.
        keep: the number of tokens to keep; at least one, and fewer than `starts` has.
    """
    head = (keep + 1) // 2
    tail = keep - head
    return text[: starts[head]] + CUT_MARK + (text[starts[len(starts) - tail] :] if tail else "")
