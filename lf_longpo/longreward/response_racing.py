"""Scores for those responses to a question that can be its best or its worst; see `racing`."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from lf_longpo.aio import Once, all_settled
from lf_longpo.config import LongRewardConfig
from lf_longpo.data.records import Question
from lf_longpo.engine.outcomes import Outcome
from lf_longpo.errors import CallFailed
from lf_longpo.files.journal import Row
from lf_longpo.longreward.racing import CHECKED, RATED, next_checks
from lf_longpo.longreward.response_files import Response
from lf_longpo.longreward.response_scoring import Rewarded, Scoring
from lf_longpo.longreward.scorer import DIMENSIONS, score_of

CANNOT_WIN = "cannot be best or worst"
TRUNCATED = "truncated: cannot be chosen or rejected"


class Racing:
    """Scores the responses of one question at a time; many questions can be in flight together.

    Each step waits for all verdicts of the step before it, so that the decisions follow from the verdicts alone. A run
    that was killed makes the same decisions again: the call cache has the verdicts.

    Args:
        scoring: reads the context, and is what scores responses without racing.
        settings: how far the race may err.
        allow_truncated: whether truncated responses can become chosen or rejected.
    """

    def __init__(self, scoring: Scoring, settings: LongRewardConfig, allow_truncated: bool) -> None:
        self._scoring = scoring
        self._error = settings.racing_error
        self._allow_truncated = allow_truncated

    async def rewards(
        self, question: Question, wanted: Sequence[str], respond: Callable[[str], Awaitable[Response | None]]
    ) -> list[Rewarded]:
        """The responses that have or get a reward, in order. The journal gets a row about each response.

        Arguments and errors are those of `Scoring.rewards`.
        """
        scoring = self._scoring
        known = scoring.files.judged(question.id)
        notes: Once[dict[str, str]] = Once(1)

        async def read_ahead() -> None:
            if all(idx in known for idx in wanted):
                scoring.progress.skip(1)
            else:  # while the responses are sampled
                await notes.get(None, lambda: scoring.notes(question))

        _, *responses = await all_settled(read_ahead(), *map(respond, wanted))
        answered = [response for response in responses if response is not None]
        for _ in range(sum(response.unfinished_thought for response in answered)):
            scoring.unfinished_thought()
        answered = [response for response in answered if not response.unfinished_thought]
        truncated = [response for response in answered if response.truncated and not self._allow_truncated]
        candidates = [response for response in answered if response not in truncated]
        details = await self._race(question, candidates, notes, known)
        for response in (*candidates, *truncated):
            if response in truncated or response.idx in details:
                self._finish(question, response, details.get(response.idx, {}), known.get(response.idx))
        return [
            Rewarded(response, score_of(details[response.idx]).reward)
            for response in candidates
            if CHECKED in details.get(response.idx, {})
        ]

    async def _race(
        self,
        question: Question,
        candidates: Sequence[Response],
        notes: Once[dict[str, str]],
        known: Mapping[str, Row],
    ) -> dict[str, dict[str, Any]]:
        """The details of each candidate, by idx: of all dimensions, or without faithfulness. Lost ones are missing."""
        scorer = self._scoring.scorer
        details: dict[str, dict[str, Any]] = {}

        async def rate(response: Response) -> None:
            row = known.get(response.idx)
            if row is not None and row["answer"] == response.answer and set(RATED) <= row["scores"].keys():
                details[response.idx] = _details_of(row)
                return
            read = await notes.get(None, lambda: self._scoring.notes(question))
            try:
                details[response.idx] = await scorer.rate(
                    question.id, question.context, question.question, response.answer, read
                )
            except CallFailed as error:
                self._scoring.lost(response, error)

        await all_settled(*map(rate, candidates))
        left = [response for response in candidates if response.idx in details]
        while checks := next_checks([_scores(details[response.idx]) for response in left], self._error):
            await all_settled(*(self._check(question, left[i], details) for i in checks))
            left = [response for response in left if response.idx in details]
        return details

    async def _check(self, question: Question, response: Response, details: dict[str, dict[str, Any]]) -> None:
        """Adds the faithfulness of a response to its details, or removes the response from them."""
        try:
            checked = await self._scoring.scorer.check(
                question.id, question.context, question.question, response.answer
            )
        except CallFailed as error:
            del details[response.idx]
            self._scoring.lost(response, error)
        else:
            details[response.idx] = details[response.idx] | {CHECKED: checked}

    def _finish(self, question: Question, response: Response, details: Mapping[str, Any], known: Row | None) -> None:
        """Writes the row of a response, unless the journal has it."""
        missing = [name for name in DIMENSIONS if name not in details]
        if missing:
            self._scoring.outcomes.count(Outcome.GIVEN_UP)
        before = [name for name in DIMENSIONS if name not in known["scores"]] if known else None
        if known is not None and known["answer"] == response.answer and missing == before:
            self._scoring.progress.skip(1)
            return
        if missing:
            reason = CANNOT_WIN if details else TRUNCATED
            self._scoring.give_up(question, response, details, dict.fromkeys(missing, reason))
        else:
            self._scoring.keep(question, response, score_of(details))


def unsettled(rows: Iterable[Row], error: float, allow_truncated: bool) -> bool:
    """Whether further verdicts are needed to find the best and the worst response of a question.

    Args:
        rows: the journal's rows about the responses.
        error: see `next_checks`.
        allow_truncated: see `Racing`.
    """
    scores = [row["scores"] for row in rows if allow_truncated or not Response.of(row).truncated]
    return not all(set(RATED) <= known.keys() for known in scores) or bool(next_checks(scores, error))


def _scores(details: Mapping[str, Any]) -> dict[str, float]:
    return {name: detail["score"] for name, detail in details.items()}


def _details_of(row: Row) -> dict[str, Any]:
    """The details in a row; published rows can lack them."""
    details = row.get("details") or {}
    return {name: details.get(name) or {"score": row["scores"][name]} for name in DIMENSIONS if name in row["scores"]}
