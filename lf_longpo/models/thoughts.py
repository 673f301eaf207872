"""Keeps the thoughts of a model apart from its answers, in all forms in which backends return them."""

from dataclasses import replace
from typing import TYPE_CHECKING

from lf_longpo.errors import UserError
from lf_longpo.models.chat import ChatRequest, Completion
from lf_longpo.text.thinking import MARKS, opening_at_end, opens_thought, split_thought

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# More tokens than any opening mark has.
_LONGEST_MARK = 16


class Thoughts:
    """Separates the replies of one model, and learns from them whether its chat template opens the thought."""

    def __init__(self) -> None:
        self._opened = False

    def separate(self, completion: Completion, request: ChatRequest) -> Completion:
        """The completion with the answer as its text.

        A reply that was cut off before any mark is an unfinished thought if an earlier reply of this model held a
        closing mark only.
        """
        if completion.thought:  # the server has separated it
            return completion
        opened = self._opened and completion.truncated and not request.reply_start
        thought, answer = split_thought(completion.text, opened)
        if thought and answer != completion.text and not opened and not opens_thought(completion.text):
            self._opened = True
        return replace(completion, text=answer, thought=thought)


def opened_thought(prompt: list[int], request: ChatRequest, tokenizer: "PreTrainedTokenizerBase") -> str:
    """The opening mark that a model's chat template has written at the end of a prompt; empty if there is none.

    Args:
        prompt: token ids of the request.
        request: the request.
        tokenizer: the model's.

    Raises:
        UserError: the request begins the reply, and the template has begun a thought.
    """
    end = _LONGEST_MARK + len(request.reply_start.encode())  # a token is at least one byte
    opening = opening_at_end(str(tokenizer.decode(prompt[-end:])).removesuffix(request.reply_start))
    if opening and request.reply_start:
        raise UserError(
            "the chat template of this model begins each reply with a thought, so rating: expected cannot be used; set "
            "rating: parsed"
        )
    return opening


def has_special_marks(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether marks of thoughts are special tokens, which decoding would skip (Magistral, gpt-oss)."""
    return any(token in mark for token in tokenizer.all_special_tokens for marks in MARKS for mark in marks)
