"""The chain of one question: responses, extraction, scores, pair. Every finished step is in a journal.

Each response goes its own way: it is scored as soon as it is there and the context has been read, and one that cannot
be scored costs only itself.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from lf_longpo.aio import Once, all_settled
from lf_longpo.config import LongRewardConfig
from lf_longpo.data.pairs import Pairs, may_train
from lf_longpo.data.records import Question, ScoredResponse
from lf_longpo.engine.pipeline import Failures
from lf_longpo.engine.progress import Progress
from lf_longpo.errors import CallFailed
from lf_longpo.longreward.pairing import best_and_worst
from lf_longpo.longreward.response_files import Files, Response
from lf_longpo.longreward.scorer import Scorer
from lf_longpo.models.calls import Calls
from lf_longpo.text.prompts import around_context

# What the policy is asked, and what it is trained on: the context, a blank line, the query.
PROMPT = "{context}\n\n{question}"


class Rewarded(NamedTuple):
    """A response and what it is worth."""

    response: Response
    reward: float


class Scoring:
    """Scores the responses of one question at a time; many can be in flight together.

    Args:
        scorer: asks the judge.
        asked: the judge's prompts, which go into digests.
        files: where finished steps are.
        failures: told of responses that cannot be scored.
        progress: told of every extraction and score.
    """

    def __init__(
        self, scorer: Scorer, asked: Sequence[str], files: Files, failures: Failures, progress: Progress
    ) -> None:
        self._scorer = scorer
        self._asked = asked
        self._files = files
        self._failures = failures
        self._progress = progress

    async def rewards(
        self, question: Question, wanted: Sequence[str], respond: Callable[[str], Awaitable[Response | None]]
    ) -> list[Rewarded]:
        """The wanted responses that have or get a score, in order.

        Args:
            question: what they answer.
            wanted: their idx.
            respond: fetches one; None where it is lost.

        Raises:
            CallFailed: the extraction was lost, without which none can be scored.
        """
        known = self._files.scores(question.id)
        notes: Once[dict[str, str]] = Once(1)

        async def one(idx: str) -> Rewarded | None:
            response = await respond(idx)
            if response is None:
                return None
            row = known.get(idx)
            if row is not None and row["answer"] == response.answer:
                self._progress.skip(1)
                return Rewarded(response, row["reward"])
            return await self._score(question, response, await notes.get(None, lambda: self.notes(question)))

        async def read_ahead() -> None:
            if all(idx in known for idx in wanted):
                self._progress.skip(1)
            else:  # while the first responses are fetched
                await notes.get(None, lambda: self.notes(question))

        _, *settled = await all_settled(read_ahead(), *(one(idx) for idx in wanted))
        return [rewarded for rewarded in settled if rewarded is not None]

    async def notes(self, question: Question) -> dict[str, str]:
        """What the question's context says about it.

        Raises:
            CallFailed: a call was lost.
        """
        known = self._files.notes(question.id)
        if known is not None:
            self._progress.skip(1)
            return known
        notes = await self._scorer.extract(question.id, question.context, question.question)
        self._files.add_notes(question.id, question.question, notes, question.digest(*self._asked))
        self._progress.step()
        return notes

    async def _score(self, question: Question, response: Response, notes: dict[str, str]) -> Rewarded | None:
        try:
            score = await self._scorer.score(question.id, question.context, question.question, response.answer, notes)
        except CallFailed as error:
            self._failures.record(response.idx, error)
            self._progress.count("not scored")
            self._progress.step()
            return None
        self._files.add_score(response, score, question.digest(*self._asked))
        self._progress.step()
        return Rewarded(response, score.reward)


class LongReward:
    """LongReward for one question at a time; many can be in flight together.

    Args:
        config: the method's settings.
        policy: samples responses; None where they are given.
        scoring: scores them.
        files: where finished steps are.
        pairs: where pairs go.
        failures: told of responses that are lost.
        progress: told of every step; its counts end in the summary.
        until: the stage after which to stop: `sample`, `extract`, `score` or `pairs`.
        allow_truncated: whether responses that were cut off may become chosen or rejected.
    """

    def __init__(
        self,
        config: LongRewardConfig,
        policy: Calls | None,
        scoring: Scoring,
        files: Files,
        pairs: Pairs,
        failures: Failures,
        progress: Progress,
        until: str = "pairs",
        allow_truncated: bool = False,
    ) -> None:
        self._config = config
        self._policy = policy
        self._scoring = scoring
        self._files = files
        self._pairs = pairs
        self._failures = failures
        self._progress = progress
        self._until = until
        self._allow_truncated = allow_truncated

    async def work(self, question: Question) -> None:
        """Takes one question from wherever it stands to its pair, or to the knowledge that it gives none.

        Raises:
            CallFailed: the extraction was lost, or so many responses that no pair is left.
            UserError: no call can work.
        """
        responses = self._files.responses(question.id)
        wanted = list(responses)
        if self._policy:
            there = {response.number: idx for idx, response in responses.items()}
            wanted = [there.get(number, f"{question.id}-{number}") for number in range(self._config.num_samples)]

        async def respond(idx: str) -> Response | None:
            if self._policy is None:
                return responses[idx]
            if idx in responses:
                self._progress.skip(1)
                return responses[idx]
            return await self._sample(self._policy, question, idx)

        if self._until in ("sample", "extract"):
            read = [self._scoring.notes(question)] if self._until == "extract" else []
            await all_settled(*read, *map(respond, wanted))
            return
        rewarded = await self._scoring.rewards(question, wanted, respond)
        if self._until == "score":
            return
        if len(rewarded) < self._config.min_responses:
            if len(wanted) >= self._config.min_responses:
                raise CallFailed(
                    f"only {len(rewarded)} of {len(wanted)} responses have a score; longreward.min_responses is "
                    f"{self._config.min_responses}"
                )
            self._pairs.drop(question.id)
            self._progress.count("too few responses")
            return
        usable = [
            one for one in rewarded if may_train(one.response.answer, one.response.truncated, self._allow_truncated)
        ]
        enough = len(usable) >= self._config.min_responses
        picked = best_and_worst([reward for _, reward in usable]) if enough else None
        if picked is None:
            self._pairs.drop(question.id)
            self._progress.count("all equal" if enough else "cut off")
            return
        chosen, rejected = (
            ScoredResponse(usable[place].response.answer, usable[place].reward, usable[place].response.number)
            for place in picked
        )
        await self._pairs.add(question, around_context(PROMPT, question=question.question), chosen, rejected)
        self._progress.count("pairs")

    async def _sample(self, policy: Calls, question: Question, idx: str) -> Response | None:
        number = int(idx.rpartition("-")[2])
        render = around_context(PROMPT, question=question.question)
        try:
            completion = await policy.complete(
                "sample", question.id, number, self._config.sampling, render, question.context
            )
        except CallFailed as error:
            self._failures.record(idx, error)
            self._progress.skip(2 if self._until in ("score", "pairs") else 1)
            return None
        response = Response(idx, question.question, completion.text, completion.truncated)
        self._files.add_response(response, question.digest())
        self._progress.step()
        return response
