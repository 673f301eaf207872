"""Two answers to one question, compared by a judge in both orders.

A judge that prefers the answer that stands first gives two verdicts that disagree.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lf_longpo.aio import all_settled
from lf_longpo.config import ChatConfig, VerdictConfig
from lf_longpo.evaluation.items import Item
from lf_longpo.evaluation.referee import Referee, judge_prompt, verdict_usage
from lf_longpo.judging.verdicts import find_verdict
from lf_longpo.models.calls import Calls
from lf_longpo.models.tokenizers import NO_LIMIT, chat_tokens, own_window
from lf_longpo.models.usage import Usage
from lf_longpo.text.prompts import around_context

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_VERDICTS = {"1": 1.0, "2": 0.0, "tie": 0.5}
# The form that the prompt asks for, or with a word before it.
_WRITTEN_VERDICT = re.compile(r"(?:verdict\s*:\s*)?(?:(?:answer|assistant|response|回答|答案)\s*)?(1|2|tie)")


class BothOrders:
    """Compares answers; `equip` comes before the first comparison.

    Args:
        config: how verdicts are read.
        judge: the judge's settings.
    """

    _referee: Referee

    def __init__(self, config: VerdictConfig, judge: ChatConfig) -> None:
        self._config = config
        self._judge = judge
        self.prompt = judge_prompt("winrate", ("context", "question", "reference", "first", "second"))
        """The template of the judge's prompt."""

    def equip(self, calls: Calls) -> None:
        """Takes the judge.

        Raises:
            UserError: the judge does not support the configured way to read verdicts.
        """
        self._referee = Referee(self._config, self._judge, calls)

    async def verdicts(self, item: Item, one: str, other: str, id: str | None = None) -> list[dict[str, Any]]:
        """`score` and `analysis` of both orders: 1 if the first answer is better, 0 if the second is, 0.5 for a tie.

        Args:
            item: the question.
            one: stands first in the first order.
            other: stands first in the second order.
            id: names the cached calls. Default: the id of the item.

        Raises:
            CallFailed: a call failed for good.
        """
        return await all_settled(*(self._verdict(id or item.id, item, *pair) for pair in ((one, other), (other, one))))

    async def _verdict(self, id: str, item: Item, first: str, second: str) -> dict[str, Any]:
        material = item.context + item.question + "".join(item.answers) + first + second
        render = self._render(item, first, second)
        return await self._referee.verdict("judge", id, render, material, _VERDICTS, _parse, item.context)

    def _render(self, item: Item, first: str, second: str) -> Callable[[str], str]:
        reference = f"\nReference answer:\n{item.answers[0]}\n" if item.answers else ""
        known = {"question": item.question, "reference": reference}
        return around_context(self.prompt, first=first, second=second, **known)

    def usage(self, item: Item, answers: int, tokenizer: "PreTrainedTokenizerBase") -> Usage:
        """Expected calls and tokens of a comparison in both orders.

        Args:
            item: the question.
            answers: tokens of both answers together.
            tokenizer: counts tokens.
        """
        window = own_window(self._judge, tokenizer) or NO_LIMIT
        prompt = chat_tokens(self._render(item, "", "")(item.context), tokenizer, self._judge) + answers
        return verdict_usage(self._config, self._judge, _VERDICTS, tokenizer, min(prompt, window)).times(2)


def side(score: float) -> int:
    """Which answer a score prefers: 1 the first, -1 the second, 0 neither."""
    return (score > 0.5) - (score < 0.5)


def _parse(text: str) -> float | None:
    found = _WRITTEN_VERDICT.fullmatch(find_verdict(text) or "")
    return _VERDICTS[found[1]] if found else None
