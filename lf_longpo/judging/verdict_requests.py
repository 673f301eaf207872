"""Asks a judge until its reply can be read: by the verdict in its text or by its token probabilities."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lf_longpo.config import ChatConfig, SamplingConfig, VerdictConfig
from lf_longpo.errors import CallFailed, Refused, UserError
from lf_longpo.judging.rating import OPENING, mean, shares
from lf_longpo.judging.verdicts import own_verdict
from lf_longpo.models.calls import Call, Calls
from lf_longpo.models.chat import Completion
from lf_longpo.models.embedded import is_embedded
from lf_longpo.models.request_parameters import concerns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The first try is nearly greedy, the others may give other replies (the values of LongReward's published code).
_TEMPERATURES = (0.01, 0.95, 0.95, 0.95, 0.95)
# Parameters of requests that begin the reply, and of those for token probabilities.
_BEGUN = ("continue_final_message", "add_generation_prompt")
_WEIGHED = ("logprobs", "top_logprobs")

T = TypeVar("T")


class Unreadable(CallFailed):
    """No reply of the judge could be used.

    Args:
        stage: name of the stage.
        last_words: the last reply.
        thoughts: how many of the replies were thoughts without an answer.
    """

    def __init__(self, stage: str, last_words: str, thoughts: int = 0) -> None:
        message = f"{stage}: none of {len(_TEMPERATURES)} replies of the judge can be used"
        if thoughts:
            message += (
                f"; {thoughts} are thoughts without an answer: raise judge.thinking_tokens, or switch the judge's "
                "thinking off (judge.extra_body: {chat_template_kwargs: {enable_thinking: false}})"
            )
        super().__init__(message)
        self.last_words = last_words


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """A request to the judge, and what its reply is read against."""

    stage: str
    id: str
    render: Callable[[str], str]
    max_tokens: int
    material: str
    """The judged text; the reply may quote it."""
    context: str = ""
    """The text that is cut if the judge's window is too small."""
    reply_start: str = ""


def rates_by_expectation(config: VerdictConfig, judge: ChatConfig) -> bool:
    """Whether verdicts are expected values: by the setting, else only for the embedded model."""
    return (config.rating or ("expected" if is_embedded(judge.model) else "parsed")) == "expected"


def calls_a_verdict(
    config: VerdictConfig, judge: ChatConfig, labels: Collection[str], tokenizer: "PreTrainedTokenizerBase"
) -> int:
    """Number of calls that a verdict takes, for estimates.

    An expected value takes a call for the token probabilities, after the analysis if there is one, and one more if a
    label, such as `10`, begins with the token of another label.
    """
    if not rates_by_expectation(config, judge):
        return 1
    shares_beginnings = any(
        longer != label and longer.startswith(label) and len(tokenizer.tokenize(longer)) > 1
        for longer in labels
        for label in labels
    )
    return 1 + bool(config.analysis_tokens) + shares_beginnings


class Judge:
    """A judge; any number of requests may run in parallel.

    Args:
        config: how verdicts are read.
        judge: the configuration of the judge model.
        calls: the judge model.
        section: section of the configuration that holds `config`, for errors.

    Raises:
        UserError: verdicts without an analysis are set, and this judge cannot give them.
    """

    def __init__(self, config: VerdictConfig, judge: ChatConfig, calls: Calls, section: str) -> None:
        self._calls = calls
        self._section = section
        self._expected = rates_by_expectation(config, judge)
        if self._expected and judge.token_probabilities is False:
            raise self._no_probabilities()
        self.begins_replies = self._expected and calls.continues_replies
        """Whether a request sets the beginning of the judge's replies."""
        if not config.analysis_tokens and not self.begins_replies:
            raise UserError(
                f"{section}.analysis_tokens: 0 needs rating: expected and a judge that continues a started reply "
                f"(transformers, vLLM, SGLang); raise {section}.analysis_tokens or change the judge"
            )

    async def ask(self, request: JudgeRequest, read: Callable[[Completion], T | None]) -> T:
        """Asks until `read` returns a result for a reply.

        Raises:
            Unreadable: no reply gave a result.
            CallFailed: a call was lost.
        """
        text, thoughts = "", 0
        for attempt in range(len(_TEMPERATURES)):
            completion = await self._complete(request, attempt, request.reply_start)
            result = read(completion)
            if result is not None:
                return result
            text = completion.text or completion.thought
            thoughts += completion.unfinished_thought
        raise Unreadable(request.stage, text, thoughts)

    async def verdict(
        self, request: JudgeRequest, verdicts: Mapping[str, float], parse: Callable[[str], float | None]
    ) -> dict[str, Any]:
        """The verdict on a request: `score` and `analysis`, and the `distribution` for expected values.

        Args:
            request: the request.
            verdicts: label to value, of all labels that may stand in the double brackets.
            parse: returns the value of the verdict in a reply, or None.

        Raises:
            Unreadable: no verdict was found.
            CallFailed: a call was lost.
        """
        if self._expected:
            return await self._expectation(request, verdicts)

        def read(completion: Completion) -> dict[str, Any] | None:
            score = parse(_verdict_in(completion, request))
            return None if score is None else {"analysis": completion.text, "score": score}

        return await self.ask(request, read)

    async def _expectation(self, request: JudgeRequest, verdicts: Mapping[str, float]) -> dict[str, Any]:
        analysis = ""
        for attempt in range(len(_TEMPERATURES)):
            settled: dict[str, float] = {}
            if request.max_tokens:
                completion = await self._complete(request, attempt, weigh_after=OPENING)
                self._refuse_thoughts(completion)
                analysis = completion.text
                if _verdict_in(completion, request):
                    self._refuse_without_weights(completion)
                    settled = await self._settle(
                        request, attempt, analysis.rpartition(OPENING)[0], completion, verdicts
                    )
            if not settled and self._calls.continues_replies:
                start = analysis.rstrip() + "\n" if analysis.strip() else ""
                completion = await self._complete(request, attempt, start + OPENING, weigh_after=OPENING)
                if completion.text and completion.weights is None:
                    raise self._no_probabilities()
                settled = await self._settle(request, attempt, start, completion, verdicts)
            score = mean(settled, verdicts)
            if score is not None:
                total = sum(settled.values())
                distribution = {label: round(settled.get(label, 0.0) / total, 4) for label in verdicts}
                return {"analysis": analysis, "score": score, "distribution": distribution}
        raise Unreadable(request.stage, analysis)

    def _refuse_thoughts(self, completion: Completion) -> None:
        """Refuses a judge that thinks: the probabilities after the brackets can be those of its thought."""
        if completion.thought:
            raise UserError(
                "the judge thinks before it answers, so rating: expected cannot read the probabilities of its rating; "
                f"set {self._section}.rating: parsed, or switch the judge's thinking off (judge.extra_body: "
                "{chat_template_kwargs: {enable_thinking: false}})"
            )

    def _refuse_without_weights(self, completion: Completion) -> None:
        if OPENING in completion.text and completion.weights is None and not self._calls.continues_replies:
            raise self._no_probabilities()

    def _no_probabilities(self, reason: str = "") -> UserError:
        return UserError(
            f"the judge's server reports no token probabilities{reason}, which rating: expected needs; set "
            f"{self._section}.rating: parsed"
        )

    async def _settle(
        self, request: JudgeRequest, attempt: int, before: str, completion: Completion, verdicts: Mapping[str, float]
    ) -> dict[str, float]:
        """Probabilities by verdict; where a first token fits several (`1` or `10`), the next token decides."""
        found = shares(completion.weights or {}, verdicts)
        settled = dict(found.settled)
        for begun, weight in found.open.items():
            follow = {}
            if self._calls.continues_replies:
                mark = OPENING + begun
                following = await self._complete(request, attempt, before + mark, weigh_after=mark)
                follow = shares(following.weights or {}, verdicts, begun).settled
            total = sum(follow.values())
            follow = follow if total else ({begun: 1.0} if begun in verdicts else {})
            for label, share in follow.items():
                settled[label] = settled.get(label, 0.0) + weight * share / (total or 1.0)
        return settled

    async def _complete(
        self, request: JudgeRequest, attempt: int, start: str = "", weigh_after: str = ""
    ) -> Completion:
        """A reply; if its start ends with the mark, only the token after it."""
        tokens = 1 if weigh_after and start else request.max_tokens
        sampling = SamplingConfig(
            temperature=_TEMPERATURES[attempt], top_p=1.0, presence_penalty=0.0, max_new_tokens=tokens
        )
        call = Call(
            request.stage,
            request.id,
            attempt,
            sampling,
            request.render,
            request.context,
            reply_start=start,
            weigh_after=weigh_after,
        )
        try:
            return await self._calls.complete(call)
        except Refused as refusal:
            if start and concerns(refusal, _BEGUN):
                raise UserError(
                    f"the judge's server does not continue a reply that a request begins ({refusal}); set "
                    "continues_replies: false next to the judge's model"
                ) from None
            if weigh_after and concerns(refusal, _WEIGHED):
                raise self._no_probabilities(f" ({refusal})") from None
            raise


def _verdict_in(completion: Completion, request: JudgeRequest) -> str:
    """The part of a reply to search for the verdict; a reply that was cut off may end in a quote."""
    if completion.truncated and OPENING in request.material:
        return ""
    return own_verdict(completion.text, request.material)
