"""Cutting a context in its middle so that the whole prompt fits a token budget.

LLaMA-Factory and servers cut a prompt that is too long at its end, where the question and the instructions stand.
Here only the context gives way, from its middle, and what counts is the length of the finished prompt, however it is
measured (a chat template, LLaMA-Factory's own encoding).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lf_longpo.errors import TextTooLong
from lf_longpo.text.chunking import token_starts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Stands where the middle was cut out, so that no sentence runs into another unnoticed.
CUT_MARK = "\n...\n"


def cut_middle(context: str, tokenizer: "PreTrainedTokenizerBase", measure: Callable[[str], int], limit: int) -> str:
    """The longest start and end of `context`, about equally long, with which the whole is at most `limit` tokens.

    Args:
        context: the text that gives way; returned as it is where it fits.
        tokenizer: the fast tokenizer whose tokens are cut.
        measure: tokens of the whole, given the context to put into it.
        limit: the budget in tokens.

    Raises:
        TextTooLong: the whole exceeds the limit even without any context.
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
        # The mark and the new neighbours cost tokens of their own; how many only the whole can tell.
        excess = measure(cut) - limit
        if excess <= 0:
            return cut
        keep -= excess
    return ""


def without_middle(text: str, starts: Sequence[int], keep: int) -> str:
    """Start and end of a text, about equally long, around `CUT_MARK`.

    Args:
        text: what is cut.
        starts: where its tokens begin, see `token_starts`.
        keep: how many tokens stay, at least one and fewer than there are.
    """
    head = (keep + 1) // 2
    tail = keep - head
    return text[: starts[head]] + CUT_MARK + (text[starts[len(starts) - tail] :] if tail else "")
