"""The answers of two models compared by a judge.

The judge compares them in both orders, so that a judge that prefers the first answer gives a tie.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lf_longpo.aio import all_settled
from lf_longpo.config import ChatConfig, WinRateConfig
from lf_longpo.data.questions import question_of
from lf_longpo.evaluation.benchmark import Row
from lf_longpo.evaluation.items import Item, Placed, item_of, read_sets
from lf_longpo.evaluation.referee import Referee, judge_prompt, verdict_usage
from lf_longpo.files.faults import AT_ONCE, Faults
from lf_longpo.judging.verdicts import find_verdict
from lf_longpo.models.calls import Calls
from lf_longpo.models.tokenizers import NO_LIMIT, chat_tokens, own_window
from lf_longpo.models.usage import Usage
from lf_longpo.text.chunking import count_tokens
from lf_longpo.text.prompts import QA_FIELDS, QA_PROMPTS, around_context, load_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_VERDICTS = {"1": 1.0, "2": 0.0, "tie": 0.5}
# The form that the prompt asks for, or with a word before it.
_WRITTEN_VERDICT = re.compile(r"(?:verdict\s*:\s*)?(?:(?:answer|assistant|response|回答|答案)\s*)?(1|2|tie)")
# Assumed tokens of an answer to a question without a reference.
_ANSWER = 200


class WinRate:
    """A `Benchmark`, which documents the members.

    `win_rate` of an answer is the mean over both orders of 1 for a win, 0.5 for a tie and 0 for a loss. It is a win or
    a loss if both orders agree on it, and a tie if both orders agree on that or differ (`agreed` is 0).

    Raises:
        UserError: the prompt template cannot be used.
    """

    name = "winrate"
    metrics: Sequence[str] = ("win_rate", "win", "tie", "loss", "agreed")
    groups: Mapping[str, Collection[str]] = {}
    _referee: Referee

    def __init__(self, config: WinRateConfig) -> None:
        self._config = config
        self._prompt = judge_prompt("winrate", ("context", "question", "reference", "first", "second"))
        self.models: Mapping[str, ChatConfig] = {"model": config.model, "against": config.against}
        self.judge = config.judge
        self.template = load_prompt(config.prompt, QA_PROMPTS, QA_FIELDS, "prompt")
        self.asked = (self.template, self._prompt)

    def items(self, faults: Faults = AT_ONCE) -> Placed:
        """Questions in the format of either paper, with or without reference answers."""
        return read_sets(self._config.input, self._config.input_split, _item, faults)

    def equip(self, judge: Calls | None) -> None:
        """Takes the judge."""
        if judge:
            self._referee = Referee(self._config.judging, self._config.judge, judge)

    async def score(self, item: Item, answers: Sequence[str]) -> Row:
        """Scores from both orders; all are None if an order has no readable verdict."""
        ours, theirs = answers
        row: Row = {"prediction": ours, "against": theirs}
        if ours == theirs:  # equal answers are a tie
            return row | _outcome(0.5, 0.5)
        first, second = await all_settled(self._verdict(item, ours, theirs), self._verdict(item, theirs, ours))
        row["analyses"] = [first["analysis"], second["analysis"]]
        if first["score"] is None or second["score"] is None:
            return row | dict.fromkeys(self.metrics)
        return row | _outcome(first["score"], 1 - second["score"])

    async def _verdict(self, item: Item, first: str, second: str) -> dict[str, Any]:
        material = item.context + item.question + "".join(item.answers) + first + second
        render = self._render(item, first, second)
        return await self._referee.verdict("judge", item.id, render, material, _VERDICTS, _parse, item.context)

    def _render(self, item: Item, first: str, second: str) -> Callable[[str], str]:
        reference = f"\nReference answer:\n{item.answers[0]}\n" if item.answers else ""
        known = {"question": item.question, "reference": reference}
        return around_context(self._prompt, first=first, second=second, **known)

    def estimate(self, item: Item, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """Two verdicts; answers are assumed to be as long as the reference, or 200 tokens long."""
        answers = 2 * (count_tokens(item.answers[0], tokenizer) if item.answers else _ANSWER)
        window = own_window(self.judge, tokenizer) or NO_LIMIT
        prompt = chat_tokens(self._render(item, "", "")(item.context), tokenizer, self.judge) + answers
        return {
            "judge": verdict_usage(self._config.judging, self.judge, _VERDICTS, tokenizer, min(prompt, window)).times(2)
        }


def _outcome(first: float, second: float) -> dict[str, float]:
    sides = _side(first), _side(second)
    agreed = sides[0] == sides[1]
    outcome = {"win": agreed and sides[0] > 0, "loss": agreed and sides[0] < 0, "agreed": agreed}
    outcome["tie"] = not (outcome["win"] or outcome["loss"])
    return {"win_rate": (first + second) / 2} | {name: float(value) for name, value in outcome.items()}


def _side(score: float) -> int:
    return (score > 0.5) - (score < 0.5)


def _parse(text: str) -> float | None:
    found = _WRITTEN_VERDICT.fullmatch(find_verdict(text) or "")
    return _VERDICTS[found[1]] if found else None


def _item(row: Any, place: str, stem: str) -> Item:
    question = question_of(row, place, needs_answers=False)
    return item_of(question, stem)
