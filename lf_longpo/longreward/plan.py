"""The plan of a LongReward run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, ClassVar

from lf_longpo.config import ChatConfig, EmbedderConfig, LongRewardGenerateConfig
from lf_longpo.data.questions import Source, check_questions, read_questions
from lf_longpo.engine.protocol import Sinks
from lf_longpo.engine.session import Session
from lf_longpo.longreward.estimate import estimate_longreward
from lf_longpo.longreward.given_responses import (
    KnownQuestion,
    check_files,
    import_responses,
    read_responses,
    unscored,
)
from lf_longpo.longreward.judge_prompts import prompts_for
from lf_longpo.longreward.method import LongReward, Models
from lf_longpo.longreward.response_files import SAMPLES, SCORES, Files, Response, rows_by_question
from lf_longpo.longreward.response_racing import unsettled
from lf_longpo.longreward.scorer import CALLS_A_QUESTION, Scorer
from lf_longpo.models.usage import Usage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LongRewardPlan:
    """A `Plan`; see there.

    Args:
        config: the run's.
        until: the stage after which to stop.

    Raises:
        UserError: a prompt template, the input or the given responses cannot be used, or rows in the run's folder
            belong to other questions.
    """

    stages: ClassVar[Sequence[str]] = ("sample", "extract", "score", "pairs")
    redone: ClassVar[Sequence[str]] = (
        "pairs.",
        "policy.thinking",
        "longreward.min_responses",
        "longreward.num_samples",
        "longreward.racing_error",
    )

    def __init__(self, config: LongRewardGenerateConfig, until: str) -> None:
        self._config = config
        self._until = until
        self._prompts = prompts_for(config.longreward, config.judge)
        self.source = Source(config.input, config.input_split, False, config.start, config.end)
        self.digests = check_questions(self.source, self._prompts.texts)
        self._questions = {
            question.id: KnownQuestion(question.question, question.digest(), self.digests[question.id])
            for question in read_questions(self.source)
        }
        self._given = check_files(config.output_dir, config.responses, self._questions)
        self.steps = self._steps()
        self.in_flight = config.judge.questions_at_once(CALLS_A_QUESTION)
        if config.policy and config.policy.batch and config.responses is None:
            self.in_flight = max(self.in_flight, config.policy.questions_at_once(CALLS_A_QUESTION))

    def estimate(self, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """The usage of a run in which every verdict can be read at once."""
        given: dict[str, list[str]] = {}
        if self._config.responses:
            for _, (id, response) in read_responses(self._config.responses, self._questions):
                given.setdefault(id, []).append(response.answer)
        return estimate_longreward(self._config, self.source, self._prompts, tokenizer, given)

    def models(self, session: Session, tokenizer: "PreTrainedTokenizerBase") -> Models:
        """Policy, judge and embedder."""
        config = self._config
        judge = session.chat(config.judge, tokenizer)
        policy = None
        if config.policy and config.responses is None:
            policy = session.chat(config.policy, tokenizer)
        embedder = session.embedder(config.embedder)
        scorer = Scorer(config.longreward, config.judge, self._prompts, judge, embedder, tokenizer, self.in_flight)
        return Models(policy, judge, embedder, scorer)

    def needed(self) -> Sequence[ChatConfig | EmbedderConfig]:
        """The policy where samples are missing; judge and embedder where scores are missing."""
        lacks_samples, lacks_scores = self._lacks()
        needed: list[ChatConfig | EmbedderConfig] = []
        if self._config.policy and lacks_samples:
            needed.append(self._config.policy)
        if lacks_scores and self._until != "sample":
            needed += [self._config.judge, self._config.embedder]
        return needed

    @contextmanager
    def open(self, models: Models, sinks: Sinks) -> Iterator[LongReward]:
        """Opens the journals of responses, notes and scores; imports the given responses."""
        config = self._config
        with Files(config.output_dir, self._questions) as files:
            if config.responses:
                import_responses(files, config.responses, self._questions)
            yield LongReward(config, self._until, self._prompts.texts, self._questions, models, files, sinks)

    def _steps(self) -> int:
        samples = 0 if self._config.responses else len(self._questions) * self._config.longreward.num_samples
        scores = samples or sum(len(self._given.get(id, ())) for id in self._questions)
        steps = {"sample": samples, "extract": len(self._questions), "score": scores}
        return sum(steps[stage] for stage in self.stages[: self.stages.index(self._until) + 1] if stage in steps)

    def _lacks(self) -> tuple[bool, bool]:
        """Whether samples, and whether scores are missing in the run's folder."""
        folder = self._config.output_dir
        if self._config.responses is not None:
            given = {id: responses for id, responses in self._given.items() if id in self._questions}
            return False, unscored(folder, given) or self._unsettled()
        numbers = range(self._config.longreward.num_samples)
        wanted = {(id, number) for id in self._questions for number in numbers}
        sampled, scored = (
            {(id, Response.of(row).number) for id, row in rows_by_question(folder, name, self._questions)}
            for name in (SAMPLES, SCORES)
        )
        samples = rows_by_question(folder, SAMPLES, self._questions)
        responses = ((id, Response.of(row)) for id, row in samples)
        without_answer = {(id, response.number) for id, response in responses if response.unfinished_thought}
        return not wanted <= sampled, not wanted - without_answer <= scored or self._unsettled()

    def _unsettled(self) -> bool:
        """Whether racing needs verdicts about responses that it gave up, as a setting has changed since."""
        config = self._config.longreward
        if not config.racing:
            return False
        most = config.num_samples if self._config.responses is None else inf
        known: dict[str, dict[tuple[int, str], dict[str, float]]] = {}
        for id, row in rows_by_question(self._config.output_dir, SCORES, self._questions):
            response = Response.of(row)
            if response.number < most and (self._config.pairs.allow_truncated or not response.truncated):
                known.setdefault(id, {})[response.number, response.idx] = row["scores"]
        by_number = ([scores for _, scores in sorted(of_question.items())] for of_question in known.values())
        return any(unsettled(scores, config.racing_error) for scores in by_number)
