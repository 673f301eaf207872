"""The answers of two models compared by a judge.

The judge compares them in both orders, so that a judge that prefers the first answer gives a tie.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lf_longpo.config import ChatConfig, WinRateConfig
from lf_longpo.data.questions import question_of
from lf_longpo.evaluation.benchmark import Row
from lf_longpo.evaluation.both_orders import BothOrders, side
from lf_longpo.evaluation.items import Item, Placed, item_of, read_sets
from lf_longpo.files.faults import AT_ONCE, Faults
from lf_longpo.models.calls import Calls
from lf_longpo.models.usage import Usage
from lf_longpo.text.chunking import count_tokens
from lf_longpo.text.prompts import QA_FIELDS, QA_PROMPTS, load_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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

    def __init__(self, config: WinRateConfig) -> None:
        self._config = config
        self._orders = BothOrders(config.judging, config.judge)
        self.models: Mapping[str, ChatConfig] = {"model": config.model, "against": config.against}
        self.judge = config.judge
        self.template = load_prompt(config.prompt, QA_PROMPTS, QA_FIELDS, "prompt")
        self.asked = (self.template, self._orders.prompt)

    def items(self, faults: Faults = AT_ONCE) -> Placed:
        """Questions in the format of either paper, with or without reference answers."""
        return read_sets(self._config.input, self._config.input_split, _item, faults)

    def equip(self, judge: Calls | None) -> None:
        """Takes the judge."""
        if judge:
            self._orders.equip(judge)

    async def score(self, item: Item, answers: Sequence[str]) -> Row:
        """Scores from both orders; all are None if an order has no readable verdict."""
        ours, theirs = answers
        row: Row = {"prediction": ours, "against": theirs}
        if ours == theirs:  # equal answers are a tie
            return row | _outcome(0.5, 0.5)
        first, second = await self._orders.verdicts(item, ours, theirs)
        row["analyses"] = [first["analysis"], second["analysis"]]
        if first["score"] is None or second["score"] is None:
            return row | dict.fromkeys(self.metrics)
        return row | _outcome(first["score"], 1 - second["score"])

    def estimate(self, item: Item, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """Two verdicts; answers are assumed to be as long as the reference, or 200 tokens long."""
        answers = 2 * (count_tokens(item.answers[0], tokenizer) if item.answers else _ANSWER)
        return {"judge": self._orders.usage(item, answers, tokenizer)}


def _outcome(first: float, second: float) -> dict[str, float]:
    sides = side(first), side(second)
    agreed = sides[0] == sides[1]
    outcome = {"win": agreed and sides[0] > 0, "loss": agreed and sides[0] < 0, "agreed": agreed}
    outcome["tie"] = not (outcome["win"] or outcome["loss"])
    return {"win_rate": (first + second) / 2} | {name: float(value) for name, value in outcome.items()}


def _item(row: Any, place: str, stem: str) -> Item:
    question = question_of(row, place, needs_answers=False)
    return item_of(question, stem)
