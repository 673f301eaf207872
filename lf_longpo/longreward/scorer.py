"""The judge's calls: what a context says about a query, and the scores of a response on four dimensions.

LongReward, arXiv 2410.21252, section 3. All parts of a response are judged at the same time; the longest chain has two
calls: one splits the response into statements, one checks a statement.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from lf_longpo.aio import Once, all_settled
from lf_longpo.config import ChatConfig, JudgingConfig
from lf_longpo.errors import CallFailed
from lf_longpo.judging.verdict_requests import Judge, JudgeRequest
from lf_longpo.longreward.evidence import PassageFinder, Passages
from lf_longpo.longreward.parsing import (
    BEST_RATING,
    find_information,
    find_statements,
    rating_in_range,
)
from lf_longpo.longreward.racing import CHECKED, RATED
from lf_longpo.longreward.statement_checks import StatementChecker
from lf_longpo.models.calls import Calls
from lf_longpo.models.chat import Completion
from lf_longpo.models.embedders import Embedder
from lf_longpo.text.chunking import chunk_tokens, count_tokens
from lf_longpo.text.language import detect_language
from lf_longpo.text.prompt_set import PromptSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# At least about as many, with ten responses.
CALLS_A_QUESTION = 100
DIMENSIONS = ("helpfulness", "logicality", "faithfulness", "completeness")

# The most new tokens of an extraction and of a list of statements (the published code's values). Neither is much longer
# than its source, and a small judge that repeats itself is stopped earlier.
_EXTRACT_TOKENS = 1024
_EXTRACT_SHARE, _EXTRACT_AT_LEAST = 4, 256  # a quarter of the part of the context
_STATEMENTS_TOKENS = 2048
# With more parts than this, whole percents would give two parts the same name.
_MOST_WHOLE_PERCENTS = 100

RATINGS = {str(rating): float(rating) for rating in range(int(BEST_RATING) + 1)}


@dataclass(frozen=True, slots=True)
class Score:
    """The scores of a response."""

    scores: dict[str, float]
    """Each dimension, 0 to 10, and their sum as `total`."""
    reward: float
    """The mean of the dimensions."""
    details: dict[str, Any]
    """By dimension: score, analysis, statements with their passages; in the form of the published files."""


def score_of(details: Mapping[str, Any]) -> Score:
    """The score of a response.

    Args:
        details: by dimension, each with its `score`.
    """
    ordered = {dimension: details[dimension] for dimension in DIMENSIONS}
    scores = {dimension: detail["score"] for dimension, detail in ordered.items()}
    total = sum(scores.values())
    return Score(scores | {"total": total}, total / len(DIMENSIONS), ordered)


def _refuse_empty(answer: str) -> None:
    if not answer.strip():
        raise CallFailed("the response is empty")


class Scorer:
    """Extraction and scoring, for any number of responses at once.

    Args:
        config: how to judge.
        judge: the judge's configuration; where `rates_by_expectation` holds, ratings are means of its distribution.
        prompts: the judge's prompts.
        calls: the judge.
        embedder: finds the passages to check a statement against.
        tokenizer: counts the tokens of chunks.
        remembered: how many contexts stay in memory with their passages and notes; at least the questions in flight.
    """

    def __init__(
        self,
        config: JudgingConfig,
        judge: ChatConfig,
        prompts: PromptSet,
        calls: Calls,
        embedder: Embedder,
        tokenizer: "PreTrainedTokenizerBase",
        remembered: int,
    ) -> None:
        self._config = config
        self._judge = Judge(config, judge, calls, "longreward")
        self._checker = StatementChecker(config, prompts, self._judge)
        self._prompts = prompts
        self._tokenizer = tokenizer
        passages = config.evidence_chunk_size, config.evidence_top_k
        self._passages = PassageFinder(embedder, tokenizer, *passages, remembered)
        self._notes: Once[dict[str, str]] = Once(remembered)
        self._ratings: Once[dict[str, Any]] = Once(remembered)
        self._checks: Once[dict[str, Any]] = Once(remembered)

    async def extract(self, id: str, context: str, query: str) -> dict[str, str]:
        """What each part of a context says about a query, by the part's position in percent. Extracted once.

        Args:
            id: of the question; names the cached calls.
            context: the whole document.
            query: the question about it.

        Raises:
            CallFailed: a call was lost, or a reply stayed empty.
        """
        return await self._notes.get((context, query), lambda: self._extract(id, context, query))

    async def score(
        self, id: str, context: str, query: str, answer: str, notes: Mapping[str, str] | None = None
    ) -> Score:
        """Scores one response; the same response to the same question is judged once.

        Args:
            id: of the question; names the cached calls.
            context: the whole document.
            query: the question about it.
            answer: the response.
            notes: the result of `extract`. Default: it is extracted at the same time.

        Raises:
            Unreadable: the judge's verdict on a dimension cannot be read, or it found no statement in the response.
            CallFailed: a call was lost, or the response is empty.
        """
        both = self.rate(id, context, query, answer, notes), self.check(id, context, query, answer)
        ratings, checked = await all_settled(*both)
        return score_of(ratings | {CHECKED: checked})

    async def rate(
        self, id: str, context: str, query: str, answer: str, notes: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The details of `RATED`, which take one call each. Arguments and errors: `score`."""
        _refuse_empty(answer)
        key = (context, query, answer)
        return await self._ratings.get(key, lambda: self._rate(id, context, query, answer, notes))

    async def check(self, id: str, context: str, query: str, answer: str) -> dict[str, Any]:
        """The details of `CHECKED`, which takes calls for the statements. Arguments and errors: `score`."""
        _refuse_empty(answer)
        key = (context, query, answer)
        return await self._checks.get(key, lambda: self._faithfulness(id, context, query, answer))

    async def _extract(self, id: str, context: str, query: str) -> dict[str, str]:
        size = self._config.chunk_size
        chunks = await asyncio.to_thread(chunk_tokens, context, self._tokenizer, size)
        total = size * (len(chunks) - 1) + count_tokens(chunks[-1], self._tokenizer)
        digits = 0 if len(chunks) <= _MOST_WHOLE_PERCENTS else 2
        render = self._prompts.render("extract", detect_language(query), query=query)

        async def read(i: int, chunk: str) -> tuple[str, str]:
            begin, end = i * size / total, min((i + 1) * size / total, 1.0)
            tokens = min(size, total - i * size)
            limit = min(_EXTRACT_TOKENS, max(tokens // _EXTRACT_SHARE, _EXTRACT_AT_LEAST))
            asked = JudgeRequest("extract", id, render, limit, chunk + query, context=chunk)
            found = await self._judge.ask(asked, lambda completion: find_information(completion.text, asked.material))
            return f"{begin:.{digits}%} - {end:.{digits}%}", found

        return dict(await all_settled(*(read(i, chunk) for i, chunk in enumerate(chunks))))

    async def _rate(
        self, id: str, context: str, query: str, answer: str, notes: Mapping[str, str] | None
    ) -> dict[str, Any]:
        language = detect_language(query)
        limit = self._config.analysis_tokens

        def overall(stage: str) -> Awaitable[dict[str, Any]]:
            render = self._prompts.render(stage, language, query=query, answer=answer)
            return self._judge.verdict(JudgeRequest(stage, id, render, limit, query + answer), RATINGS, rating_in_range)

        async def complete() -> dict[str, Any]:
            known = await self.extract(id, context, query) if notes is None else notes
            found = "\n\n".join(f"[{part}]\n{text}" for part, text in known.items())
            render = self._prompts.render("completeness", language, query=query, answer=answer)
            asked = JudgeRequest("completeness", id, render, limit, query + found + answer, context=found)
            return await self._judge.verdict(asked, RATINGS, rating_in_range)

        verdicts = await all_settled(overall("helpfulness"), overall("logicality"), complete())
        return dict(zip(RATED, verdicts, strict=True))

    async def _faithfulness(self, id: str, context: str, query: str, answer: str) -> dict[str, Any]:
        """10 x the mean support of the response's statements (arXiv 2410.21252, section 3.3)."""
        # The context is embedded while the judge splits the response.
        work = self._statements(id, query, answer), self._passages.prepare(context)
        statements, embedded = cast(tuple[list[str], Passages], await all_settled(*work))
        passages = await self._passages.find(id, embedded, statements)
        # A statement that occurs twice counts twice, but is checked once.
        checked = await self._checker.check(id, detect_language(query), dict(zip(statements, passages, strict=True)))
        mean_support = sum(checked[statement]["score"] for statement in statements) / len(statements)
        return {
            "score": BEST_RATING * mean_support,
            "facts": {statement: check["score"] for statement, check in checked.items()},
            "details": list(checked.values()),
        }

    async def _statements(self, id: str, query: str, answer: str) -> list[str]:
        begun = self._judge.begins_replies

        def read(completion: Completion) -> list[str] | None:
            return find_statements(completion.text, query + answer, begun) or None

        limit = min(_STATEMENTS_TOKENS, 256 + 3 * count_tokens(answer, self._tokenizer))
        render = self._prompts.render("statements", detect_language(query), query=query, answer=answer)
        start = "<statement>" if begun else ""
        return await self._judge.ask(
            JudgeRequest("statements", id, render, limit, query + answer, reply_start=start), read
        )
