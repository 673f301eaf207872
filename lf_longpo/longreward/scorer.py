"""Asking the judge: what a context says about a query, and what a response is worth on four dimensions.

LongReward, arXiv 2410.21252, section 3. All parts of one response are asked at the same time; the longest chain is two
calls, the splitting into statements and the checking of one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lf_longpo.aio import Once, all_settled
from lf_longpo.config import ChatConfig, JudgingConfig, SamplingConfig
from lf_longpo.errors import CallFailed, UserError
from lf_longpo.longreward.evidence import Evidence
from lf_longpo.longreward.parsing import (
    BEST_RATING,
    find_information,
    find_statements,
    find_support,
    own_verdict,
    rating_in_range,
)
from lf_longpo.longreward.prompts import JudgePrompts
from lf_longpo.longreward.rating import LEVELS, OPENING, RATINGS, mean, shares
from lf_longpo.models.calls import Calls
from lf_longpo.models.chat import Completion
from lf_longpo.models.embedded import is_embedded
from lf_longpo.models.embedders import Embedder
from lf_longpo.text.chunking import chunk_tokens, count_tokens
from lf_longpo.text.language import detect_language

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# About as many at least, with ten responses.
CALLS_A_QUESTION = 100
DIMENSIONS = ("helpfulness", "logicality", "faithfulness", "completeness")

# First try nearly greedy, then up to four that may come out otherwise (the published code's values).
_TEMPERATURES = (0.01, 0.95, 0.95, 0.95, 0.95)
# Most new tokens of an extraction and of a list of statements (the published code's values). Neither makes its source
# much longer, and a small judge that repeats itself is stopped earlier.
_EXTRACT_TOKENS = 1024
_EXTRACT_SHARE, _EXTRACT_AT_LEAST = 4, 256  # a quarter of the part that was read
_STATEMENTS_TOKENS = 2048
# With more parts than this, whole percents would give two of them the same name.
_MOST_WHOLE_PERCENTS = 100
_PASSAGE = {"en": "[Passage {}]", "zh": "[段落 {}]"}

T = TypeVar("T")


class Unreadable(CallFailed):
    """No reply of the judge could be used; `last_words` is the last one."""

    def __init__(self, stage: str, last_words: str) -> None:
        super().__init__(f"{stage}: nothing usable in {len(_TEMPERATURES)} replies of the judge")
        self.last_words = last_words


@dataclass(frozen=True, slots=True)
class Score:
    """What a response is worth."""

    scores: dict[str, float]
    """Each dimension, 0 to 10, and their sum as `total`."""
    reward: float
    """The mean of the dimensions."""
    details: dict[str, Any]
    """By dimension: score, analysis, statements with their passages; in the published files' form."""


@dataclass(frozen=True, slots=True)
class _Asked:
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


def rates_by_expectation(config: JudgingConfig, judge: ChatConfig) -> bool:
    """Whether ratings are expected ones: as set, or by default for the embedded model."""
    return (config.rating or ("expected" if is_embedded(judge.model) else "parsed")) == "expected"


def prompts_for(config: JudgingConfig, judge: ChatConfig) -> JudgePrompts:
    """The judge's prompts: as set, or by default brief ones for the embedded model and full ones for others."""
    return JudgePrompts(config.prompts or ("brief" if is_embedded(judge.model) else "full"))


class Scorer:
    """Extraction and scoring, for any number of responses at once.

    Args:
        config: how to judge.
        judge: who judges; its ratings are means of its distribution where `rates_by_expectation` says so.
        prompts: the judge's prompts.
        calls: the judge.
        embedder: finds the passages to check a statement against.
        tokenizer: counts the tokens of chunks.
        remembered: contexts whose passages and notes stay in memory; at least as many as are worked on at once.
    """

    def __init__(
        self,
        config: JudgingConfig,
        judge: ChatConfig,
        prompts: JudgePrompts,
        calls: Calls,
        embedder: Embedder,
        tokenizer: "PreTrainedTokenizerBase",
        remembered: int,
    ) -> None:
        self._config = config
        self._expected = rates_by_expectation(config, judge)
        self._prompts = prompts
        self._calls = calls
        self._tokenizer = tokenizer
        passages = config.evidence_chunk_size, config.evidence_top_k
        self._evidence = Evidence(embedder, tokenizer, *passages, remembered)
        self._notes: Once[dict[str, str]] = Once(remembered)
        self._scores: Once[Score] = Once(remembered)
        if not config.analysis_tokens and not (self._expected and calls.continues_replies):
            raise UserError(
                "longreward.analysis_tokens: 0 needs rating: expected and a judge that goes on with a reply that was "
                "begun (transformers, vLLM, SGLang); raise it"
            )

    async def extract(self, id: str, context: str, query: str) -> dict[str, str]:
        """What each part of a context says about a query, by the part's place in percent; asked once for all.

        Args:
            id: of the question; names the calls that are kept.
            context: the whole document.
            query: what is asked of it.

        Raises:
            CallFailed: a call was lost, or a reply stayed empty.
        """
        return await self._notes.get((context, query), lambda: self._extract(id, context, query))

    async def score(
        self, id: str, context: str, query: str, answer: str, notes: Mapping[str, str] | None = None
    ) -> Score:
        """Scores one response; the same response to the same question is asked about once.

        Args:
            id: of the question; names the calls that are kept.
            context: the whole document.
            query: what was asked of it.
            answer: the response.
            notes: what `extract` found; by default it is asked, beside the rest.

        Raises:
            Unreadable: the judge gave no verdict on a dimension, or found no statement in the response.
            CallFailed: a call was lost, or the response is empty.
        """
        if not answer.strip():
            raise CallFailed("the response is empty")
        key = (context, query, answer)
        return await self._scores.get(key, lambda: self._score(id, context, query, answer, notes))

    async def _extract(self, id: str, context: str, query: str) -> dict[str, str]:
        size = self._config.chunk_size
        chunks = await asyncio.to_thread(chunk_tokens, context, self._tokenizer, size)
        total = size * (len(chunks) - 1) + count_tokens(chunks[-1], self._tokenizer)
        digits = 0 if len(chunks) <= _MOST_WHOLE_PERCENTS else 2
        render = self._prompts.render("extract", detect_language(query), query=query)

        async def one(index: int, chunk: str) -> tuple[str, str]:
            begin, end = index * size / total, min((index + 1) * size / total, 1.0)
            tokens = min(size, total - index * size)
            limit = min(_EXTRACT_TOKENS, max(tokens // _EXTRACT_SHARE, _EXTRACT_AT_LEAST))
            asked = _Asked("extract", id, render, limit, chunk + query, context=chunk)
            found = await self._ask(asked, lambda completion: find_information(completion.text, asked.material))
            return f"{begin:.{digits}%} - {end:.{digits}%}", found

        return dict(await all_settled(*(one(index, chunk) for index, chunk in enumerate(chunks))))

    async def _score(self, id: str, context: str, query: str, answer: str, notes: Mapping[str, str] | None) -> Score:
        language = detect_language(query)
        limit = self._config.analysis_tokens

        def overall(stage: str) -> Awaitable[dict[str, Any]]:
            render = self._prompts.render(stage, language, query=query, answer=answer)
            return self._verdict(_Asked(stage, id, render, limit, query + answer), RATINGS, rating_in_range)

        async def complete() -> dict[str, Any]:
            known = await self.extract(id, context, query) if notes is None else notes
            found = "\n\n".join(f"[{place}]\n{text}" for place, text in known.items())
            render = self._prompts.render("completeness", language, query=query, answer=answer)
            asked = _Asked("completeness", id, render, limit, query + found + answer, context=found)
            return await self._verdict(asked, RATINGS, rating_in_range)

        verdicts = await all_settled(
            overall("helpfulness"), overall("logicality"), self._faithfulness(id, context, query, answer), complete()
        )
        details = dict(zip(DIMENSIONS, verdicts, strict=True))
        scores = {dimension: detail["score"] for dimension, detail in details.items()}
        total = sum(scores.values())
        return Score(scores | {"total": total}, total / len(DIMENSIONS), details)

    async def _faithfulness(self, id: str, context: str, query: str, answer: str) -> dict[str, Any]:
        """10 x the mean support of the response's statements (arXiv 2410.21252, section 3.3)."""
        # The context is embedded while the judge splits the response.
        statements, known = await all_settled(self._statements(id, query, answer), self._evidence.prepare(context))
        passages = await self._evidence.find(id, known, statements)
        language = detect_language(query)

        async def check(statement: str, evidence: list[tuple[int, str]]) -> dict[str, Any]:
            shown = "\n\n".join(
                f"{_PASSAGE[language].format(number)}\n{text}" for number, (_, text) in enumerate(evidence, 1)
            )
            render = self._prompts.render("faithfulness", language, statement=statement)
            limit = self._config.analysis_tokens
            asked = _Asked("faithfulness", id, render, limit, shown + statement, context=shown)
            verdict = await self._verdict(asked, LEVELS, find_support)
            texts = [{"c_idx": place, "content": text} for place, text in evidence]
            return {"fact": statement, **verdict, "evidences": texts}

        # A statement that stands twice counts twice, but is asked about once.
        each = dict(zip(statements, passages, strict=True))
        checked = dict(zip(each, await all_settled(*(check(*item) for item in each.items())), strict=True))
        mean_support = sum(checked[statement]["score"] for statement in statements) / len(statements)
        return {
            "score": BEST_RATING * mean_support,
            "facts": {statement: check["score"] for statement, check in checked.items()},
            "details": list(checked.values()),
        }

    async def _statements(self, id: str, query: str, answer: str) -> list[str]:
        begun = self._expected and self._calls.continues_replies

        def read(completion: Completion) -> list[str] | None:
            return find_statements(completion.text, query + answer, begun) or None

        limit = min(_STATEMENTS_TOKENS, 256 + 3 * count_tokens(answer, self._tokenizer))
        render = self._prompts.render("statements", detect_language(query), query=query, answer=answer)
        start = "<statement>" if begun else ""
        return await self._ask(_Asked("statements", id, render, limit, query + answer, reply_start=start), read)

    async def _ask(self, asked: _Asked, read: Callable[[Completion], T | None]) -> T:
        """Asks until `read` makes something of a reply."""
        completion = None
        for attempt in range(len(_TEMPERATURES)):
            completion = await self._complete(asked, attempt, asked.reply_start)
            result = read(completion)
            if result is not None:
                return result
        raise Unreadable(asked.stage, completion.text)

    async def _verdict(
        self, asked: _Asked, verdicts: Mapping[str, float], parse: Callable[[str], float | None]
    ) -> dict[str, Any]:
        """Score and analysis of one thing that is judged."""
        if self._expected:
            return await self._expectation(asked, verdicts)

        def read(completion: Completion) -> dict[str, Any] | None:
            score = parse(_verdict_in(completion, asked))
            return None if score is None else {"analysis": completion.text, "score": score}

        return await self._ask(asked, read)

    async def _expectation(self, asked: _Asked, verdicts: Mapping[str, float]) -> dict[str, Any]:
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
                "longreward.rating: parsed"
            )

    async def _settle(
        self, asked: _Asked, attempt: int, before: str, completion: Completion, verdicts: Mapping[str, float]
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

    async def _complete(self, asked: _Asked, attempt: int, start: str = "", weigh_after: str = "") -> Completion:
        """One reply; where it was begun up to the mark, only the token behind that."""
        tokens = 1 if weigh_after and start else asked.max_tokens
        sampling = SamplingConfig(
            temperature=_TEMPERATURES[attempt], top_p=1.0, presence_penalty=0.0, max_new_tokens=tokens
        )
        return await self._calls.complete(
            asked.stage,
            asked.id,
            attempt,
            sampling,
            asked.render,
            asked.context,
            reply_start=start,
            weigh_after=weigh_after,
        )


def _verdict_in(completion: Completion, asked: _Asked) -> str:
    """The part of a reply to look for the verdict in; one that was cut short may end in a quote."""
    if completion.finish_reason == "length" and OPENING in asked.material:
        return ""
    return own_verdict(completion.text, asked.material)
