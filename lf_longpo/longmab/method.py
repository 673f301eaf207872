"""The chain of one question: probe, chunks, rounds of rollouts, pair. Every finished step is in a journal.

A question that was interrupted goes through the same chain again: what its journals hold is read instead of done, so
that the bandit has the same state as before.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.aio import all_settled
from lf_longpo.config import LongMabConfig, LongMabGenerateConfig
from lf_longpo.data.records import Probe, Question, Rollout, row_of
from lf_longpo.engine.outcomes import Outcome
from lf_longpo.engine.protocol import Sinks
from lf_longpo.longmab.bandit import LinearChunkSampler, RandomChunkSampler, UCBChunkSampler
from lf_longpo.longmab.bandit_summary import bandit_summary
from lf_longpo.longmab.probe import FIELDS, arm_values, arrives_at
from lf_longpo.longmab.rollout_files import PROBES, ROLLOUTS, Journals
from lf_longpo.longmab.rounds import Rounds
from lf_longpo.models.calls import Call, Calls
from lf_longpo.models.embedders import Embedder
from lf_longpo.text.answers import is_in_every_text, rollout_reward
from lf_longpo.text.chunking import chunk_sentences
from lf_longpo.text.prompts import QA_FIELDS, QA_PROMPTS, around_context, load_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A pair has two sides.
_SIDES = 2
_PROMPTS = Path(__file__).parent / "prompts"


class Prompts:
    """The two prompt templates of the method, read and checked once; `texts` are both.

    Raises:
        UserError: a template is missing or lacks a placeholder.
    """

    def __init__(self, config: LongMabConfig) -> None:
        self._probe = load_prompt(config.probe_prompt, _PROMPTS, FIELDS, "longmab.probe_prompt")
        self._rollout = load_prompt(config.prompt, QA_PROMPTS, QA_FIELDS, "longmab.prompt")
        self.texts = (self._probe, self._rollout)

    def probe(self, question: Question) -> Callable[[str], str]:
        """Puts a context into the question's probe prompt."""
        return around_context(self._probe, question=question.question, answer=question.answers[0])

    def rollout(self, question: Question) -> Callable[[str], str]:
        """Puts a context into the question's rollout and training prompt."""
        return around_context(self._rollout, question=question.question)


@dataclass(frozen=True, slots=True)
class Models:
    """The models of the method."""

    policy: Calls
    embedder: Embedder
    """Compares probes and chunks."""
    tokenizer: "PreTrainedTokenizerBase"
    """Counts the tokens of chunks."""


class LongMab:
    """A `Run`; see there. Many questions can be in flight together.

    Args:
        config: the run's.
        until: the stage after which to stop: `probe`, `rollout` or `pairs`.
        prompts: the prompt templates.
        question_ids: the run's questions, for the summary.
        models: the models.
        journals: hold the finished steps.
        sinks: take pairs and outcomes.
    """

    def __init__(
        self,
        config: LongMabGenerateConfig,
        until: str,
        prompts: Prompts,
        question_ids: Sequence[str],
        models: Models,
        journals: Journals,
        sinks: Sinks,
    ) -> None:
        self._run_config = config
        self._config = config.longmab
        self._seed = config.seed
        self._until = until
        self._prompts = prompts
        self._question_ids = question_ids
        self._models = models
        self._journals = journals
        self._pairs = sinks.pairs
        self._progress = sinks.progress
        self._outcomes = sinks.outcomes
        skipped = journals.skipped
        rounds = config.longmab.rounds if config.longmab.stop is None else f"at most {config.longmab.rounds}"
        self.announcement = [
            *([f"{skipped} lines of the journals cannot be read; their work is done again"] if skipped else []),
            f"policy {config.policy.model} ({config.policy.backend})",
            f"  probe    -> {config.output_dir / PROBES}",
            f"  rollout  -> {config.output_dir / ROLLOUTS} ({rounds} rounds per question)",
        ]

    async def work(self, question: Question) -> None:
        """The chain of one question."""
        if is_in_every_text(question.answers):
            self._outcomes.count(Outcome.GOLD_IN_EVERY_TEXT)
        probe = self._journals.probe(question.id)
        finished = self._journals.finished_rounds(question.id, self._config.rounds)
        chunks: list[str] = []
        if probe is None or (probe.kept and not Rounds(question, self._run_config).replay(finished).ended):
            sizes = self._config.chunk_size, self._config.chunk_overlap
            chunks = await asyncio.to_thread(chunk_sentences, question.context, self._models.tokenizer, *sizes)
        if probe:
            self._progress.skip(1)
        else:
            probe = await self._probe(question, chunks)
            self._progress.step()
        self._count_unfinished(probe.probe, probe.thought)
        if not probe.kept:
            self._pairs.drop(question.id)
            self._outcomes.count(Outcome.PROBE_FAILED)
            self._progress.skip(0 if self._until == "probe" else self._config.rounds)
        if not probe.kept or self._until == "probe":
            return
        rounds = await self._roll_out(question, probe, chunks, finished)
        for rollout in rounds.rollouts:
            self._count_unfinished(rollout.output, rollout.thought)
        if saved := self._config.rounds - len(rounds.rollouts):
            self._outcomes.count(Outcome.ROUND_SAVED, saved)
            self._progress.spare(saved)
        if self._until == "pairs":
            await self._pair(question, rounds)

    def finished(self) -> set[str]:
        """See `Run`."""
        return {id for id in self._question_ids if self._is_finished(id)}

    def _is_finished(self, id: str) -> bool:
        probe = self._journals.probe(id)
        if probe is None or not probe.kept or self._until == "probe":
            return probe is not None
        # With `stop`, only `work` knows whether these rounds are enough. If not, its next call leaves it unfinished.
        rounds = self._config.rounds if self._config.stop is None else 1
        return len(self._journals.finished_rounds(id, self._config.rounds)) >= rounds

    def summary(self) -> dict[str, Any]:
        """Outcomes, rewards and arms."""
        outcomes = (
            Outcome.PROBE_FAILED,
            Outcome.NO_REWARD_DIFFERENCE,
            Outcome.TRUNCATED,
            Outcome.GOLD_IN_EVERY_TEXT,
            Outcome.UNFINISHED_THOUGHT,
            Outcome.ROUND_SAVED,
        )
        bandit = bandit_summary(self._journals, self._question_ids, self._config)
        return self._outcomes.summary(*outcomes) | bandit

    def _count_unfinished(self, text: str, thought: str) -> None:
        if thought and not text.strip():
            self._outcomes.count(Outcome.UNFINISHED_THOUGHT)

    async def _probe(self, question: Question, chunks: list[str]) -> Probe:
        config = self._config
        call = Call(
            stage="probe",
            question=question.id,
            index=0,
            sampling=config.sampling,
            render=self._prompts.probe(question),
            context=question.context,
            following=config.rounds,
        )
        completion = await self._models.policy.complete(call)
        kept = arrives_at(completion.text, question.answers)
        values: list[float] = []
        if kept:
            embedder = self._models.embedder
            values = await arm_values(
                config.init, question.id, question.question, completion.text, chunks, embedder, self._seed
            )
        digest = question.digest(*self._prompts.texts)
        probe = Probe(question.id, digest, kept, completion.text, values, completion.thought)
        self._journals.probes.append(row_of(probe))
        return probe

    async def _roll_out(
        self, question: Question, probe: Probe, chunks: list[str], finished: dict[int, Rollout]
    ) -> Rounds:
        config = self._config
        sampler = self._sampler(question, probe.initial_values)
        rounds = Rounds(question, self._run_config)
        if config.selection == "random" and config.stop is None:
            # No round waits for another.
            drawn = [sampler.select(config.top_k) for _ in range(config.rounds)]
            self._progress.skip(len(finished))
            missing = [
                self._round(question, chunks, round, arms, 0, lambda reward: probe.initial_values)
                for round, arms in enumerate(drawn)
                if round not in finished
            ]
            made = {rollout.round: rollout for rollout in await all_settled(*missing)}
            return rounds.replay(finished | made)

        def learn(arms: list[int], reward: float) -> list[float]:
            sampler.update(arms, reward)
            return [float(value) for value in sampler.values]

        while not rounds.ended:
            round = len(rounds.rollouts)
            arms = sampler.select(config.top_k)
            if rollout := finished.get(round):
                learn(rollout.arms, rollout.reward)
                self._progress.skip(1)
            else:
                # With `stop`, these are the most that follow.
                following = config.rounds - 1 - round
                rollout = await self._round(question, chunks, round, arms, following, partial(learn, arms))
            rounds.add(rollout)
        return rounds

    def _sampler(
        self, question: Question, initial_values: list[float]
    ) -> UCBChunkSampler | LinearChunkSampler | RandomChunkSampler:
        if self._config.selection == "random":
            return RandomChunkSampler(initial_values, f"{self._seed}/{question.id}")
        if self._config.selection == "linear":
            return LinearChunkSampler(initial_values)
        return UCBChunkSampler(initial_values)

    async def _round(
        self,
        question: Question,
        chunks: list[str],
        round: int,
        arms: list[int],
        following: int,
        learn: Callable[[float], list[float]],
    ) -> Rollout:
        """One rollout, written to its journal; `learn` takes its reward and returns the values of all arms after it."""
        call = Call(
            stage="rollout",
            question=question.id,
            index=round,
            sampling=self._config.sampling,
            render=self._prompts.rollout(question),
            context="\n".join(chunks[arm] for arm in arms),
            following=following,
        )
        completion = await self._models.policy.complete(call)
        reward = 0.0
        if not completion.unfinished_thought:
            reward = rollout_reward(completion.text, question.answers, self._config.answer_form)
        rollout = Rollout(
            question.id,
            round,
            arms,
            completion.text,
            reward,
            learn(reward),
            completion.truncated,
            completion.thought,
        )
        self._journals.rollouts.append(row_of(rollout))
        self._progress.step()
        return rollout

    async def _pair(self, question: Question, rounds: Rounds) -> None:
        pairs = rounds.pairs()
        if not pairs:
            self._pairs.drop(question.id)
            complete = len(rounds.responses) >= _SIDES
            self._outcomes.count(Outcome.NO_REWARD_DIFFERENCE if complete else Outcome.TRUNCATED)
            return
        made = await self._pairs.add(question, self._prompts.rollout(question), pairs)
        self._outcomes.count(Outcome.PAIR, made)
