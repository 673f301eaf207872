"""The chain of one question: responses, extraction, scores, pair. Every finished step is in a journal.

Responses do not wait for each other: each is scored as soon as it is sampled and the context has been read, and a
response that cannot be scored costs itself only.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lf_longpo.aio import all_settled
from lf_longpo.config import LongRewardGenerateConfig
from lf_longpo.data.pair_choice import choose_pairs
from lf_longpo.data.pairs import may_train
from lf_longpo.data.records import Question, ScoredResponse
from lf_longpo.engine.outcomes import Outcome
from lf_longpo.engine.protocol import Sinks
from lf_longpo.errors import CallFailed
from lf_longpo.longreward.pairing import best_and_worst
from lf_longpo.longreward.response_files import NOTES, SAMPLES, SCORES, Files, Response
from lf_longpo.longreward.response_racing import Race
from lf_longpo.longreward.response_scoring import Rewarded, Scoring
from lf_longpo.longreward.score_summary import score_summary
from lf_longpo.longreward.scorer import Scorer
from lf_longpo.models.calls import Call, Calls
from lf_longpo.models.embedders import Embedder
from lf_longpo.text.prompts import around_context

# The prompt of the policy, and of training: the context, a blank line, the query.
PROMPT = "{context}\n\n{question}"


@dataclass(frozen=True, slots=True)
class Models:
    """The models of the method."""

    policy: Calls | None
    """Samples responses; None where they are given."""
    judge: Calls
    """Scores responses; may be the policy."""
    embedder: Embedder
    """Finds the passages to check statements against."""
    scorer: Scorer
    """Uses judge and embedder."""


class LongReward:
    """A `Run`; see there. Many questions can be in flight together.

    Args:
        config: the run's.
        until: the stage after which to stop: `sample`, `extract`, `score` or `pairs`.
        prompts: the judge's prompts, which go into digests.
        question_ids: the run's questions, for the summary.
        models: the models.
        files: hold the finished steps.
        sinks: take pairs, failures and outcomes.
    """

    def __init__(
        self,
        config: LongRewardGenerateConfig,
        until: str,
        prompts: Sequence[str],
        question_ids: Collection[str],
        models: Models,
        files: Files,
        sinks: Sinks,
    ) -> None:
        self._config = config.longreward
        self._pair_settings = config.pairs
        self._until = until
        self._question_ids = question_ids
        self._policy = models.policy
        self._files = files
        self._pairs = sinks.pairs
        self._failures = sinks.failures
        self._progress = sinks.progress
        self._outcomes = sinks.outcomes
        self._scoring = Scoring(models.scorer, prompts, files, sinks.failures, sinks.progress, sinks.outcomes)
        self.announcement = _announcement(config, files.skipped)

    async def work(self, question: Question) -> None:
        """The chain of one question."""
        responses = self._files.responses(question.id)
        wanted = list(responses)
        if self._policy:
            sampled = {response.number: idx for idx, response in responses.items()}
            wanted = [sampled.get(number, f"{question.id}-{number}") for number in range(self._config.num_samples)]

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
        if self._config.racing:
            race = Race(self._scoring, question, self._config.racing_error, self._pair_settings.allow_truncated)
            rewarded = await race.rewards(wanted, respond)
        else:
            rewarded = await self._scoring.rewards(question, wanted, respond)
        if self._until == "pairs":
            await self._pair(question, rewarded, wanted)

    def finished(self) -> set[str]:
        """See `Run`."""
        return {id for id in self._question_ids if self._is_finished(id)}

    def _is_finished(self, id: str) -> bool:
        if self._policy and len(self._files.responses(id)) < self._config.num_samples:
            return False
        if self._until in ("sample", "extract"):
            return self._until == "sample" or self._files.notes(id) is not None
        return self._files.all_scored(id)

    def summary(self) -> dict[str, Any]:
        """Outcomes and scores."""
        outcomes = (
            Outcome.NO_REWARD_DIFFERENCE,
            Outcome.TRUNCATED,
            Outcome.TOO_FEW_RESPONSES,
            Outcome.NOT_SCORED,
            Outcome.UNFINISHED_THOUGHT,
        )
        racing = (Outcome.GIVEN_UP,) if self._config.racing else ()
        return self._outcomes.summary(*outcomes, *racing) | score_summary(self._files, self._question_ids)

    async def _pair(self, question: Question, rewarded: Sequence[Rewarded], wanted: Sequence[str]) -> None:
        least = self._config.min_responses
        if len(rewarded) < least:
            responses = self._files.responses(question.id)
            unfinished = sum(idx in responses and responses[idx].unfinished_thought for idx in wanted)
            if len(wanted) >= least > len(rewarded) + unfinished:
                raise CallFailed(
                    f"only {len(rewarded)} of {len(wanted)} responses have a score; longreward.min_responses is {least}"
                )
            self._pairs.drop(question.id)
            self._outcomes.count(Outcome.TRUNCATED if len(wanted) >= least else Outcome.TOO_FEW_RESPONSES)
            return
        complete = [
            (response, reward)
            for response, reward in rewarded
            if may_train(response.answer, response.truncated, self._pair_settings.allow_truncated)
        ]
        usable = [
            ScoredResponse(response.answer, reward, response.number, response.thought)
            for response, reward in complete
            if reward is not None
        ]
        enough = len(complete) >= least
        picked = best_and_worst([response.reward for response in usable]) if enough else None
        pairs = choose_pairs(usable, *picked, self._pair_settings) if picked else []
        if not pairs:
            self._pairs.drop(question.id)
            self._outcomes.count(Outcome.NO_REWARD_DIFFERENCE if enough else Outcome.TRUNCATED)
            return
        made = await self._pairs.add(question, around_context(PROMPT, question=question.question), pairs)
        self._outcomes.count(Outcome.PAIR, made)

    async def _sample(self, policy: Calls, question: Question, idx: str) -> Response | None:
        call = Call(
            stage="sample",
            question=question.id,
            index=int(idx.rpartition("-")[2]),
            sampling=self._config.sampling,
            render=around_context(PROMPT, question=question.question),
            context=question.context,
        )
        try:
            completion = await policy.complete(call)
        except CallFailed as error:
            self._failures.record(idx, error)
            self._progress.skip(2 if self._until in ("score", "pairs") else 1)
            return None
        response = Response(idx, question.question, completion.text, completion.truncated, completion.thought)
        self._files.add_response(response, question.digest())
        self._progress.step()
        return response


def _announcement(config: LongRewardGenerateConfig, skipped: int) -> list[str]:
    lines = [f"{skipped} lines of the journals cannot be used; their work is done again"] if skipped else []
    models, source = f"judge {config.judge.model} ({config.judge.backend})", f"from {config.responses}"
    if config.policy and config.responses is None:
        models = f"policy {config.policy.model} ({config.policy.backend}), {models}"
        source = f"{config.longreward.num_samples} per question"
    return [
        *lines,
        models,
        f"  sample   -> {config.output_dir / SAMPLES} ({source})",
        f"  extract  -> {config.output_dir / NOTES}",
        f"  score    -> {config.output_dir / SCORES}",
    ]
