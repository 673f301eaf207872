"""Scores for those responses to a question that can be its best or its worst; see `racing`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from lf_longpo.aio import Once, all_settled
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


class Race:
    """Scores the responses to one question.

    A response is rated as soon as it is sampled. Each step of checks waits for all verdicts of the step before it, and
    a score in the journal only replaces its call. So the decisions follow from the verdicts alone, and a run that was
    killed makes the same decisions again.

    Args:
        scoring: reads the context, and is what scores responses without racing.
        question: the question.
        error: see `next_checks`.
        allow_truncated: whether truncated responses can become chosen or rejected.
    """

    def __init__(self, scoring: Scoring, question: Question, error: float, allow_truncated: bool) -> None:
        self._scoring = scoring
        self._question = question
        self._error = error
        self._allow_truncated = allow_truncated
        self._rows = scoring.files.judged(question.id)
        self._notes: Once[dict[str, str]] = Once(1)
        self._details: dict[str, dict[str, Any]] = {}
        """By idx: the details of the dimensions that have a score. Lost responses are missing."""

    async def rewards(
        self, wanted: Sequence[str], respond: Callable[[str], Awaitable[Response | None]]
    ) -> list[Rewarded]:
        """The responses that the judge has not lost, in order. The journal gets a row about each.

        Arguments and errors are those of `Scoring.rewards`.
        """
        _, *answered = await all_settled(self._read_ahead(wanted), *(self._rate(idx, respond) for idx in wanted))
        responses = [response for response in answered if response is not None]
        left = self._left([response for response in responses if not self._is_truncated(response)])
        while checks := next_checks([_scores(self._details[response.idx]) for response in left], self._error):
            await all_settled(*(self._check(left[i]) for i in checks))
            left = self._left(left)
        return [self._finished(response) for response in self._left(responses)]

    def _left(self, responses: Sequence[Response]) -> list[Response]:
        return [response for response in responses if response.idx in self._details]

    async def _read_ahead(self, wanted: Sequence[str]) -> None:
        if all(idx in self._rows for idx in wanted):
            self._scoring.progress.skip(1)
        else:  # while the first responses are sampled
            await self._read()

    async def _read(self) -> dict[str, str]:
        return await self._notes.get(None, lambda: self._scoring.notes(self._question))

    async def _rate(self, idx: str, respond: Callable[[str], Awaitable[Response | None]]) -> Response | None:
        """A response with its ratings; None if it was not sampled or has no answer. Truncated ones are not rated."""
        response = await respond(idx)
        if response is None:
            return None
        if response.unfinished_thought:
            self._scoring.unfinished_thought()
            return None
        known, question = _details_of(self._row(response)), self._question
        if self._is_truncated(response):
            self._details[idx] = {}
        elif set(RATED) <= known.keys():
            self._details[idx] = {name: known[name] for name in RATED}
        else:
            notes = await self._read()
            try:
                ratings = await self._scoring.scorer.rate(
                    question.id, question.context, question.question, response.answer, notes
                )
            except CallFailed as error:
                self._scoring.lost(response, error)
            else:
                self._details[idx] = dict(ratings)  # equal responses share the ratings
        return response

    async def _check(self, response: Response) -> None:
        """Adds the faithfulness of a response to its details, or removes the response from them."""
        known, question = _details_of(self._row(response)), self._question
        try:
            checked = known.get(CHECKED) or await self._scoring.scorer.check(
                question.id, question.context, question.question, response.answer
            )
        except CallFailed as error:
            del self._details[response.idx]
            self._scoring.lost(response, error)
        else:
            self._details[response.idx][CHECKED] = checked

    def _finished(self, response: Response) -> Rewarded:
        """Writes the row of a response, unless the journal has it."""
        row = self._row(response)
        known = _details_of(row)
        # The journal can hold more scores than the race needs, from before a setting was changed.
        details = known | self._details[response.idx]
        missing = [name for name in DIMENSIONS if name not in details]
        if missing:
            self._scoring.outcomes.count(Outcome.GIVEN_UP)
        score = None if missing else score_of(details)
        if row is not None and known.keys() == details.keys():
            self._scoring.progress.skip(1)
        elif score is not None:
            self._scoring.keep(self._question, response, score)
        else:
            reason = TRUNCATED if self._is_truncated(response) else CANNOT_WIN
            self._scoring.give_up(self._question, response, details, dict.fromkeys(missing, reason))
        return Rewarded(response, score.reward if score else None)

    def _is_truncated(self, response: Response) -> bool:
        return response.truncated and not self._allow_truncated

    def _row(self, response: Response) -> Row | None:
        """The journal's row about a response."""
        row = self._rows.get(response.idx)
        return row if row is not None and row["answer"] == response.answer else None


def unsettled(known: Sequence[Mapping[str, float]], error: float) -> bool:
    """Whether a race needs further verdicts.

    Args:
        known: the scores of each response that can become chosen or rejected, in the race's order.
        error: see `next_checks`.
    """
    if not all(set(RATED) <= scores.keys() for scores in known):
        return True
    used = [{name: scores[name] for name in RATED} for scores in known]
    while checks := next_checks(used, error):
        if any(CHECKED not in known[i] for i in checks):
            return True
        for i in checks:
            used[i][CHECKED] = known[i][CHECKED]
    return False


def _scores(details: Mapping[str, Any]) -> dict[str, float]:
    return {name: detail["score"] for name, detail in details.items()}


def _details_of(row: Row | None) -> dict[str, Any]:
    """The details in a row; published rows can lack them."""
    if row is None:
        return {}
    details = row.get("details") or {}
    return {name: details.get(name) or {"score": row["scores"][name]} for name in DIMENSIONS if name in row["scores"]}
