"""Asking a judge until its reply can be read, by the verdict it writes or by its token probabilities."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lf_longpo.config import ChatConfig, SamplingConfig, VerdictConfig
from lf_longpo.errors import CallFailed, UserError
from lf_longpo.judging.rating import OPENING, mean, shares
from lf_longpo.judging.verdicts import own_verdict
from lf_longpo.models.calls import Call, Calls
from lf_longpo.models.chat import Completion
from lf_longpo.models.embedded import is_embedded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# First try nearly greedy, then up to four that may come out otherwise (the values of LongReward's published code).
_TEMPERATURES = (0.01, 0.95, 0.95, 0.95, 0.95)

T = TypeVar("T")


class Unreadable(CallFailed):
    """No reply of the judge could be used; `last_words` is the last one."""

    def __init__(self, stage: str, last_words: str) -> None:
        super().__init__(f"{stage}: nothing usable in {len(_TEMPERATURES)} replies of the judge")
        self.last_words = last_words


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing the judge is asked, before the answer is tried to be read."""

    stage: str
    id: str
    render: Callable[[str], str]
    max_tokens: int
    material: str
    """What is judged; the reply may quote it."""
    context: str = ""
    """What gives way where the judge's window is too small."""
    reply_start: str = ""


def rates_by_expectation(config: VerdictConfig, judge: ChatConfig) -> bool:
    """Whether verdicts are expected ones: as set, or by default for the embedded model."""
    return (config.rating or ("expected" if is_embedded(judge.model) else "parsed")) == "expected"


def calls_a_verdict(
    config: VerdictConfig, judge: ChatConfig, labels: Collection[str], tokenizer: "PreTrainedTokenizerBase"
) -> int:
    """How many calls one verdict is expected to take.

    One that is expected takes a call for the token probabilities, after the analysis if there is one; and one more
    where a label, such as `10`, begins with the token of another.
    """
    if not rates_by_expectation(config, judge):
        return 1
    open_ones = any(
        longer != label and longer.startswith(label) and len(tokenizer.tokenize(longer)) > 1
        for longer in labels
        for label in labels
    )
    return 1 + bool(config.analysis_tokens) + open_ones


class Judge:
    """A judge of any number of things at once.

    Args:
        config: how verdicts are read.
        judge: who judges.
        calls: the same, to be asked.
        section: of the configuration that `config` came from, for errors.

    Raises:
        UserError: verdicts are to be read at once, and this judge cannot.
    """

    def __init__(self, config: VerdictConfig, judge: ChatConfig, calls: Calls, section: str) -> None:
        self._calls = calls
        self._section = section
        self._expected = rates_by_expectation(config, judge)
        self.begins_replies = self._expected and calls.continues_replies
        """Whether its replies are begun for it."""
        if not config.analysis_tokens and not self.begins_replies:
            raise UserError(
                f"{section}.analysis_tokens: 0 needs rating: expected and a judge that goes on with a reply that was "
                "begun (transformers, vLLM, SGLang); raise it"
            )

    async def ask(self, asked: Asked, read: Callable[[Completion], T | None]) -> T:
        """Asks until `read` makes something of a reply.

        Raises:
            Unreadable: it never did.
            CallFailed: a call was lost.
        """
        completion = None
        for attempt in range(len(_TEMPERATURES)):
            completion = await self._complete(asked, attempt, asked.reply_start)
            result = read(completion)
            if result is not None:
                return result
        raise Unreadable(asked.stage, completion.text)

    async def verdict(
        self, asked: Asked, verdicts: Mapping[str, float], parse: Callable[[str], float | None]
    ) -> dict[str, Any]:
        """What one thing is worth: `score` and `analysis`, and the `distribution` where it was read.

        Args:
            asked: what is judged.
            verdicts: label to value, of all that may stand in the double brackets.
            parse: the value of the verdict in a reply, or None.

        Raises:
            Unreadable: no verdict can be found.
            CallFailed: a call was lost.
        """
        if self._expected:
            return await self._expectation(asked, verdicts)

        def read(completion: Completion) -> dict[str, Any] | None:
            score = parse(_verdict_in(completion, asked))
            return None if score is None else {"analysis": completion.text, "score": score}

        return await self.ask(asked, read)

    async def _expectation(self, asked: Asked, verdicts: Mapping[str, float]) -> dict[str, Any]:
        analysis = ""
        for attempt in range(len(_TEMPERATURES)):
            settled: dict[str, float] = {}
            if asked.max_tokens:
                completion = await self._complete(asked, attempt, weigh_after=OPENING)
                analysis = completion.text
                if _verdict_in(completion, asked):
                    self._refuse_without_weights(completion)
                    settled = await self._settle(asked, attempt, analysis.rpartition(OPENING)[0], completion, verdicts)
            if not settled and self._calls.continues_replies:
                start = analysis.rstrip() + "\n" if analysis.strip() else ""
                completion = await self._complete(asked, attempt, start + OPENING, weigh_after=OPENING)
                settled = await self._settle(asked, attempt, start, completion, verdicts)
            score = mean(settled, verdicts)
            if score is not None:
                total = sum(settled.values())
                distribution = {label: round(settled.get(label, 0.0) / total, 4) for label in verdicts}
                return {"analysis": analysis, "score": score, "distribution": distribution}
        raise Unreadable(asked.stage, analysis)

    def _refuse_without_weights(self, completion: Completion) -> None:
        if OPENING in completion.text and completion.weights is None and not self._calls.continues_replies:
            raise UserError(
                "the judge's server tells no token probabilities, which rating: expected needs; set "
                f"{self._section}.rating: parsed"
            )

    async def _settle(
        self, asked: Asked, attempt: int, before: str, completion: Completion, verdicts: Mapping[str, float]
    ) -> dict[str, float]:
        """Shares by verdict; what a first token leaves open (`1` or `10`) is settled by what may follow it."""
        found = shares(completion.weights or {}, verdicts)
        settled = dict(found.settled)
        for begun, weight in found.open.items():
            follow = {}
            if self._calls.continues_replies:
                mark = OPENING + begun
                next_one = await self._complete(asked, attempt, before + mark, weigh_after=mark)
                follow = shares(next_one.weights or {}, verdicts, begun).settled
            total = sum(follow.values())
            follow = follow if total else ({begun: 1.0} if begun in verdicts else {})
            for label, share in follow.items():
                settled[label] = settled.get(label, 0.0) + weight * share / (total or 1.0)
        return settled

    async def _complete(self, asked: Asked, attempt: int, start: str = "", weigh_after: str = "") -> Completion:
        """One reply; where it was begun up to the mark, only the token behind that."""
        tokens = 1 if weigh_after and start else asked.max_tokens
        sampling = SamplingConfig(
            temperature=_TEMPERATURES[attempt], top_p=1.0, presence_penalty=0.0, max_new_tokens=tokens
        )
        return await self._calls.complete(
            Call(
                asked.stage,
                asked.id,
                attempt,
                sampling,
                asked.render,
                asked.context,
                reply_start=start,
                weigh_after=weigh_after,
            )
        )


def _verdict_in(completion: Completion, asked: Asked) -> str:
    """The part of a reply to look for the verdict in; one that was cut short may end in a quote."""
    if completion.truncated and OPENING in asked.material:
        return ""
    return own_verdict(completion.text, asked.material)
