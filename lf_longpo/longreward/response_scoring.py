"""Scores for the responses to a question. Every finished extraction and score is in a journal."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lf_longpo.aio import Once, all_settled
from lf_longpo.data.records import Question
from lf_longpo.engine.failures import Failures
from lf_longpo.engine.outcomes import Outcome, Outcomes
from lf_longpo.engine.progress import Progress
from lf_longpo.errors import CallFailed
from lf_longpo.longreward.response_files import Files, Response
from lf_longpo.longreward.scorer import Score, Scorer


class Rewarded(NamedTuple):
    """A response and its reward."""

    response: Response
    reward: float | None
    """None if racing gave it up."""


class Scoring:
    """Scores the responses of one question at a time; many questions can be in flight together.

    Args:
        scorer: makes the judge's calls.
        prompts: the judge's prompts, which go into digests.
        files: hold the finished steps.
        failures: records responses that cannot be scored.
        progress: shows every extraction and score.
        outcomes: counts responses that cannot be scored, and unfinished thoughts.
    """

    def __init__(
        self,
        scorer: Scorer,
        prompts: Sequence[str],
        files: Files,
        failures: Failures,
        progress: Progress,
        outcomes: Outcomes,
    ) -> None:
        self.scorer = scorer
        self._prompts = prompts
        self.files = files
        self._failures = failures
        self.progress = progress
        self.outcomes = outcomes

    async def rewards(
        self, question: Question, wanted: Sequence[str], respond: Callable[[str], Awaitable[Response | None]]
    ) -> list[Rewarded]:
        """The wanted responses that have or get a score, in order. Unfinished thoughts are counted and not scored.

        Args:
            question: the question that they answer.
            wanted: their idx.
            respond: returns a response by its idx; None where it is lost.

        Raises:
            CallFailed: the extraction was lost, without which no response can be scored.
        """
        known = self.files.scores(question.id)
        notes: Once[dict[str, str]] = Once(1)

        async def reward(idx: str) -> Rewarded | None:
            response = await respond(idx)
            if response is None:
                return None
            if response.unfinished_thought:
                self.unfinished_thought()
                return None
            row = known.get(idx)
            if row is not None and row["answer"] == response.answer:
                self.progress.skip(1)
                return Rewarded(response, row["reward"])
            return await self._score(question, response, await notes.get(None, lambda: self.notes(question)))

        async def read_ahead() -> None:
            if all(idx in known for idx in wanted):
                self.progress.skip(1)
            else:  # while the first responses are sampled
                await notes.get(None, lambda: self.notes(question))

        _, *settled = await all_settled(read_ahead(), *(reward(idx) for idx in wanted))
        return [rewarded for rewarded in settled if rewarded is not None]

    async def notes(self, question: Question) -> dict[str, str]:
        """What the question's context says about it, by part of the context.

        Raises:
            CallFailed: a call was lost.
        """
        known = self.files.notes(question.id)
        if known is not None:
            self.progress.skip(1)
            return known
        notes = await self.scorer.extract(question.id, question.context, question.question)
        self.files.add_notes(question.id, question.question, notes, question.digest(*self._prompts))
        self.progress.step()
        return notes

    async def _score(self, question: Question, response: Response, notes: dict[str, str]) -> Rewarded | None:
        try:
            score = await self.scorer.score(question.id, question.context, question.question, response.answer, notes)
        except CallFailed as error:
            self.lost(response, error)
            return None
        self.keep(question, response, score)
        return Rewarded(response, score.reward)

    def keep(self, question: Question, response: Response, score: Score) -> None:
        """Writes a response's score."""
        self.files.add_score(response, score, question.digest(*self._prompts))
        self.progress.step()

    def give_up(
        self, question: Question, response: Response, details: Mapping[str, Any], reasons: Mapping[str, str]
    ) -> None:
        """Writes a response that gets no reward; see `Files.add_given_up`."""
        self.files.add_given_up(response, details, reasons, question.digest(*self._prompts))
        self.progress.step()

    def lost(self, response: Response, error: CallFailed) -> None:
        """Records a response that cannot be scored."""
        self._failures.record(response.idx, error)
        self.outcomes.count(Outcome.NOT_SCORED)
        self.progress.step()

    def unfinished_thought(self) -> None:
        """Counts a response without an answer."""
        self.outcomes.count(Outcome.UNFINISHED_THOUGHT)
        self.progress.skip(1)
