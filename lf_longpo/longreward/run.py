"""LongReward as a generation method: its models, files and summary around the chain of one question."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lf_longpo.aio import all_settled
from lf_longpo.config import GenerateConfig
from lf_longpo.data.pairs import Pairs
from lf_longpo.data.questions import Source, read_questions
from lf_longpo.data.records import Question
from lf_longpo.engine.pipeline import Failures
from lf_longpo.engine.protocol import Tools
from lf_longpo.longreward.estimate import estimate_longreward
from lf_longpo.longreward.judge_prompts import prompts_for
from lf_longpo.longreward.method import LongReward, Scoring
from lf_longpo.longreward.response_files import (
    NOTES,
    SAMPLES,
    SCORES,
    Asked,
    Files,
    Response,
    check_files,
    import_responses,
    look_into,
    read_responses,
    unscored,
)
from lf_longpo.longreward.score_summary import score_summary
from lf_longpo.longreward.scorer import CALLS_A_QUESTION, Scorer
from lf_longpo.models.calls import Calls
from lf_longpo.models.embedders import make_embedder
from lf_longpo.models.factory import make_chat
from lf_longpo.models.usage import Usage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LongRewardRun:
    """A `Method`; see there for what each part does.

    Raises:
        UserError: a prompt template cannot be used.
    """

    stages = ("sample", "extract", "score", "pairs")
    repairs = ("longreward.min_responses", "longreward.num_samples")

    def __init__(self, config: GenerateConfig, until: str) -> None:
        self._config = config
        self._until = until
        self.source = Source(config.input, config.input_split, False, config.start, config.end)
        self._prompts = prompts_for(config.longreward, config.judge)
        self._files: Files | None = None
        self.asked = self._prompts.texts
        self.in_flight = config.judge.questions_at_once(CALLS_A_QUESTION)
        if config.policy and config.policy.batch and config.responses is None:
            self.in_flight = max(self.in_flight, config.policy.questions_at_once(CALLS_A_QUESTION))

    def check(self, digests: Mapping[str, str]) -> int:
        """The rows that are there or given must belong to the questions as they are."""
        config = self._config
        self._asked = {
            question.id: Asked(question.question, question.digest(), digests[question.id])
            for question in read_questions(self.source)
        }
        self._given = check_files(config.output_dir, config.responses, self._asked)
        samples = 0 if config.responses else len(self._asked) * config.longreward.num_samples
        scores = samples or sum(len(self._given.get(id, ())) for id in self._asked)
        steps = {"sample": samples, "extract": len(self._asked), "score": scores}
        return sum(steps[stage] for stage in self.stages[: self.stages.index(self._until) + 1] if stage in steps)

    def equip(self, tools: Tools) -> None:
        """Policy, judge and embedder; a policy that is its own judge is one."""
        config = self._config
        self._tools = tools
        shared = tools.tokenizer, tools.cache, tools.ledger, config.seed
        self._judge = Calls(make_chat(config.judge, tools.cache, tools.ledger), config.judge, *shared)
        self._policy = None
        if config.responses is None:
            same = config.policy == config.judge
            self._policy = (
                self._judge
                if same
                else Calls(make_chat(config.policy, tools.cache, tools.ledger), config.policy, *shared)
            )
        self._embedder = make_embedder(config.embedder, tools.cache, tools.ledger)
        self._scorer = Scorer(
            config.longreward,
            config.judge,
            self._prompts,
            self._judge,
            self._embedder,
            tools.tokenizer,
            remembered=self.in_flight,
        )

    async def start(self) -> None:
        """The policy where samples are missing, judge and embedder where scores are."""
        folder = self._config.output_dir
        if self._policy:
            numbers = range(self._config.longreward.num_samples)
            sampled, scored = (
                {(id, Response.of(row).number) for id, row in look_into(folder, name, self._asked)}
                for name in (SAMPLES, SCORES)
            )
            wanted = {(id, number) for id in self._asked for number in numbers}
            lacks_samples, lacks_scores = not wanted <= sampled, not wanted <= scored
        else:
            given = {id: responses for id, responses in self._given.items() if id in self._asked}
            lacks_samples, lacks_scores = False, unscored(folder, given)
        lacks_scores = lacks_scores and self._until != "sample"
        if lacks_samples:
            await self._policy.start()
        if lacks_scores:
            await self._judge.start()
            await self._embedder.start()

    def open(self, pairs: Pairs, failures: Failures) -> list[str]:
        """Responses, notes and scores."""
        config, progress = self._config, self._tools.progress
        self._files = Files(config.output_dir, self._asked)
        if config.responses:
            import_responses(self._files, config.responses, self._asked)
        scoring = Scoring(self._scorer, self.asked, self._files, failures, progress)
        self._chain = LongReward(
            config.longreward,
            self._policy,
            scoring,
            self._files,
            pairs,
            failures,
            progress,
            self._until,
            config.pairs.allow_truncated,
        )
        skipped = self._files.skipped
        lost = [f"{skipped} lines of the journals cannot be used; their work is done again"] if skipped else []
        policy = f"policy {config.policy.model} ({config.policy.backend}), " if self._policy else ""
        source = f"{config.longreward.num_samples} a question" if self._policy else f"from {config.responses}"
        return [
            *lost,
            f"{policy}judge {config.judge.model} ({config.judge.backend})",
            f"  sample   -> {config.output_dir / SAMPLES} ({source})",
            f"  extract  -> {config.output_dir / NOTES}",
            f"  score    -> {config.output_dir / SCORES}",
        ]

    def estimate(self, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """Of a run from its beginning."""
        given: dict[str, list[str]] = {}
        if self._config.responses:
            for _, (id, response) in read_responses(self._config.responses, self._asked):
                given.setdefault(id, []).append(response.answer)
        return estimate_longreward(self._config, self.source, self._prompts, tokenizer, given)

    async def work(self, question: Question) -> None:
        """The chain of one question."""
        await self._chain.work(question)

    def summary(self) -> dict[str, Any]:
        """Counts and scores."""
        counts = self._tools.progress.counts
        return {
            "all_equal": counts["all equal"],
            "cut_off": counts["cut off"],
            "too_few_responses": counts["too few responses"],
            "not_scored": counts["not scored"],
            **score_summary(self._files, self._asked),
        }

    async def close(self) -> None:
        """Files and models."""
        if self._files:
            self._files.close()
        policy = [self._policy.close()] if self._policy and self._policy is not self._judge else []
        await all_settled(self._judge.close(), self._embedder.close(), *policy)
