"""How a judge decides between two responses: it compares them in both orders, or scores each of them alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from lf_longpo.aio import all_settled
from lf_longpo.config import EvaluateJudgeConfig
from lf_longpo.evaluation.both_orders import BothOrders, side
from lf_longpo.evaluation.labelled_pairs import LabelledPair
from lf_longpo.evaluation.reward_rater import RewardRater
from lf_longpo.judging.ratings import Rate, Rater, Rating
from lf_longpo.judging.verdict_requests import Unreadable
from lf_longpo.models.calls import Calls
from lf_longpo.models.embedders import Embedder
from lf_longpo.models.usage import Usage
from lf_longpo.text.chunking import count_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Decision:
    """A judge's decision on a pair. 1: for the chosen response; 0: for the rejected one; 0.5: a tie; None: unknown."""

    choice: float | None
    extra: Mapping[str, float | None] = field(default_factory=dict)
    """Further metrics of the decider."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the judge said, for the row of predictions."""


class Decider(Protocol):
    """A way to decide between two responses."""

    extra: Sequence[str]
    """Names of the metrics in `Decision.extra`."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts that determine the requests, together with the pairs."""
        ...

    def equip(
        self, judge: Calls, embedder: Embedder | None, tokenizer: "PreTrainedTokenizerBase", in_flight: int
    ) -> None:
        """Takes the models.

        Raises:
            UserError: the judge does not support the configured way to decide.
        """
        ...

    async def decide(self, pair: LabelledPair, run: int) -> Decision:
        """The decision on a pair in a run, from 0.

        Raises:
            CallFailed: a call failed for good.
        """
        ...

    def usage(self, pair: LabelledPair, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """Expected calls and tokens of a decision, by stage."""
        ...


class Comparing:
    """A `Decider` that shows the judge both responses, in both orders. Orders that disagree are a tie.

    Its metric `first` is the share of verdicts for the response that stands first: 0.5 without a position bias.
    """

    extra: Sequence[str] = ("first", "agreed")

    def __init__(self, config: EvaluateJudgeConfig) -> None:
        self._orders = BothOrders(config.judging, config.judge)

    @property
    def texts(self) -> Sequence[str]:
        """The judge's prompt."""
        return (self._orders.prompt,)

    def equip(
        self, judge: Calls, embedder: Embedder | None, tokenizer: "PreTrainedTokenizerBase", in_flight: int
    ) -> None:
        """See `Decider.equip`."""
        self._orders.equip(judge)

    async def decide(self, pair: LabelledPair, run: int) -> Decision:
        """See `Decider.decide`."""
        verdicts = await self._orders.verdicts(pair, pair.chosen, pair.rejected, _id(pair, run))
        details = {"analyses": [verdict["analysis"] for verdict in verdicts]}
        scores = [verdict["score"] for verdict in verdicts]
        if None in scores:
            return Decision(None, dict.fromkeys(self.extra), details)
        first, second = (side(score) for score in scores)
        choice = 0.5 + first / 2 if first == -second else 0.5
        extra = {"first": 0.5 + (first + second) / 4, "agreed": float(first == -second)}
        return Decision(choice, extra, details | {"verdicts": scores})

    def usage(self, pair: LabelledPair, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """See `Decider.usage`."""
        answers = count_tokens(pair.chosen, tokenizer) + count_tokens(pair.rejected, tokenizer)
        return {"judge": self._orders.usage(pair, answers, tokenizer)}


class Scoring:
    """A `Decider` that prefers the response with the higher score; its metrics are the decisions by each dimension.

    Args:
        rater: scores a response.
        runs: how often each pair is decided on.
    """

    _rates: list[Rate]

    def __init__(self, rater: Rater, runs: int) -> None:
        self._rater = rater
        self._runs = runs
        self.extra: Sequence[str] = rater.dimensions

    @property
    def texts(self) -> Sequence[str]:
        """The rater's texts."""
        return self._rater.texts

    def equip(
        self, judge: Calls, embedder: Embedder | None, tokenizer: "PreTrainedTokenizerBase", in_flight: int
    ) -> None:
        """See `Decider.equip`."""
        # Each run has its own, because a scorer judges the same response once.
        self._rates = [self._rater.rate(judge, embedder, tokenizer, in_flight) for _ in range(self._runs)]

    async def decide(self, pair: LabelledPair, run: int) -> Decision:
        """See `Decider.decide`."""

        async def rating(response: str) -> Rating | str:
            try:
                return await self._rates[run](_id(pair, run), pair, response)
            except Unreadable as error:
                return error.last_words

        ratings = await all_settled(rating(pair.chosen), rating(pair.rejected))
        known = [rating for rating in ratings if isinstance(rating, Rating)]
        if len(known) < len(ratings):
            words = [rating for rating in ratings if isinstance(rating, str)]
            return Decision(None, dict.fromkeys(self.extra), {"analyses": words})
        extra = {name: _higher(*(rating.dimensions[name] for rating in known)) for name in self.extra}
        scores = [{"total": rating.total, **rating.dimensions} for rating in known]
        return Decision(_higher(*(rating.total for rating in known)), extra, {"scores": scores})

    def usage(self, pair: LabelledPair, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """See `Decider.usage`."""
        return self._rater.usage(pair, (pair.chosen, pair.rejected), tokenizer)


def make_decider(config: EvaluateJudgeConfig, rater: Rater | None) -> Decider:
    """The decider of a configuration.

    Args:
        config: the evaluation's.
        rater: scores responses with a chat model; None unless `config.embeds`.
    """
    if config.mode == "compare":
        return Comparing(config)
    return Scoring(rater or RewardRater(config.judge), config.runs)


def _higher(chosen: float, rejected: float) -> float:
    if math.isclose(chosen, rejected, rel_tol=0.0, abs_tol=1e-9):
        return 0.5
    return float(chosen > rejected)


def _id(pair: LabelledPair, run: int) -> str:
    """Names the calls of a run, so that another run makes its own calls with its own seeds."""
    return f"{pair.id} (run {run + 1})" if run else pair.id
