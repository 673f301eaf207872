"""LongReward as a generation method: its models, files and summary around the chain of one question."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lf_longpo.aio import all_settled
from lf_longpo.config import GenerateConfig
from lf_longpo.longreward.estimate import estimate_longreward
from lf_longpo.longreward.files import (
    NOTES,
    SAMPLES,
    SCORES,
    Files,
    check_files,
    import_responses,
    look_into,
    read_responses,
)
from lf_longpo.longreward.method import LongReward, Scoring
from lf_longpo.longreward.scorer import Scorer, prompts_for
from lf_longpo.longreward.summary import score_summary
from lf_longpo.method import Tools, Usage
from lf_longpo.models.calls import Calls
from lf_longpo.models.chat import make_chat
from lf_longpo.models.embedders import make_embedder
from lf_longpo.pairs import Pairs
from lf_longpo.pipeline import Failures
from lf_longpo.questions import read_questions
from lf_longpo.records import Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LongRewardRun:
    """A `Method`; see there for what each part does.

    Raises:
        UserError: a prompt template cannot be used.
    """

    needs_answers = False
    repairs = ("longreward.min_responses", "longreward.num_samples")

    def __init__(self, config: GenerateConfig) -> None:
        self._config = config
        self._prompts = prompts_for(config.longreward, config.judge)
        self._files: Files | None = None
        self.asked = self._prompts.texts
        self.in_flight = 2 * config.judge.max_concurrency

    def check(self, digests: Mapping[str, str]) -> int:
        """The rows that are there or given must belong to the questions as they are."""
        config = self._config
        self._ids = list(digests)
        questions = read_questions(config.input, config.input_split, needs_answers=False)
        asked = {question.id: question.question for question in questions}
        given = check_files(config.output_dir, config.responses, asked, digests)
        each = config.longreward.num_samples
        self._wanted = {id: given[id] if config.responses else each for id in self._ids}
        scores, samples = sum(self._wanted.values()), 0 if config.responses else each * len(self._ids)
        return len(self._ids) + samples + scores

    def equip(self, tools: Tools) -> None:
        """Policy, judge and embedder; a policy that is its own judge is loaded once."""
        config = self._config
        self._tools = tools
        shared = tools.tokenizer, tools.cache, tools.ledger, config.seed
        judge = make_chat(config.judge)
        self._judge_calls = Calls(judge, config.judge, *shared)
        self._policy = None
        if config.responses is None:
            policy = judge if config.policy == config.judge else make_chat(config.policy)
            self._policy = Calls(policy, config.policy, *shared)
        self._embedder = make_embedder(config.embedder, tools.cache, tools.ledger)
        self._scorer = Scorer(
            config.longreward, config.judge, self._prompts, self._judge_calls, self._embedder, tools.tokenizer
        )

    async def start(self) -> None:
        """The policy where samples are missing, judge and embedder where scores are."""
        scored, sampled = self._there(SCORES), self._there(SAMPLES)
        if any(scored[id] < self._wanted[id] for id in self._ids):
            await self._judge_calls.start()
            await self._embedder.start()
        if self._policy and any(sampled[id] < self._wanted[id] for id in self._ids):
            await self._policy.start()

    def estimate(self, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """Of a run from its beginning."""
        given: dict[str, list[str]] = {}
        if self._config.responses:
            for _, id, response in read_responses(self._config.responses, self._wanted):
                given.setdefault(id, []).append(response.answer)
        return estimate_longreward(self._config, self._prompts, tokenizer, given)

    def _there(self, name: str) -> Counter[str]:
        """How many responses of each question a file of the run has."""
        rows = {(id, row["idx"]) for id, row in look_into(self._config.output_dir, name, self._ids)}
        return Counter(id for id, _ in rows)

    def open(self, pairs: Pairs, failures: Failures) -> list[str]:
        """Responses, notes and scores."""
        config, progress = self._config, self._tools.progress
        self._files = Files(config.output_dir, self._ids)
        if config.responses:
            import_responses(self._files, config.responses, self._ids)
        scoring = Scoring(self._scorer, self.asked, self._files, failures, progress)
        self._chain = LongReward(config.longreward, self._policy, scoring, self._files, pairs, failures, progress)
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

    async def work(self, question: Question) -> None:
        """The chain of one question."""
        await self._chain.work(question)

    def summary(self) -> dict[str, Any]:
        """Counts and scores."""
        counts = self._tools.progress.counts
        return {
            "all_equal": counts["all equal"],
            "too_few_responses": counts["too few responses"],
            "not_scored": counts["not scored"],
            **score_summary(self._files, self._ids),
        }

    async def close(self) -> None:
        """Files and models."""
        if self._files:
            self._files.close()
        policy = [self._policy.close()] if self._policy else []
        await all_settled(self._judge_calls.close(), self._embedder.close(), *policy)
