"""The chain of one question: probe, chunks, rounds of roll-outs, pair. Every finished step is in a journal.

A question that was interrupted goes through the same chain again: what its journals hold is read instead of done, so
that the bandit stands where it stood.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lf_longpo.aio import all_settled
from lf_longpo.config import LongMabConfig
from lf_longpo.data.pairs import Pairs, may_train
from lf_longpo.data.records import Probe, Question, Rollout, ScoredResponse, names, record_of
from lf_longpo.engine.progress import Progress
from lf_longpo.files.journal import Journal, read_rows
from lf_longpo.longmab.bandit import UCBChunkSampler, random_arms
from lf_longpo.longmab.pairing import best_and_worst
from lf_longpo.longmab.probe import FIELDS, arm_values, arrives_at
from lf_longpo.models.calls import Calls
from lf_longpo.models.embedders import Embedder
from lf_longpo.text.answers import has_unread_answer, is_in_every_text, rollout_reward
from lf_longpo.text.chunking import chunk_sentences
from lf_longpo.text.prompts import QA_FIELDS, QA_PROMPTS, around_context, load_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBES, ROLLOUTS = "probes.jsonl", "rollouts.jsonl"

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
        """Puts a context into the question's roll-out and training prompt."""
        return around_context(self._rollout, question=question.question)


class Journals:
    """The journals of one run, by stage."""

    def __init__(self, output_dir: Path) -> None:
        self.probes = Journal(output_dir / PROBES, names(Probe))
        self.rollouts = Journal(output_dir / ROLLOUTS, names(Rollout))

    def finished_rounds(self, question_id: str, rounds: int) -> dict[int, Rollout]:
        """The first `rounds` roll-outs of a question, as far as they were made, by round."""
        rows = self.rollouts.rows(question_id)
        return {row["round"]: record_of(Rollout, row) for row in rows if row["round"] < rounds}

    def skipped(self) -> int:
        """Lines of both that were no rows; their work is done again."""
        return self.probes.skipped + self.rollouts.skipped

    def close(self) -> None:
        """Closes both."""
        self.probes.close()
        self.rollouts.close()


class LongMab:
    """LongMab-PO for one question at a time; many can be in flight together.

    Args:
        config: the bandit's settings.
        seed: the run's.
        prompts: the prompt templates.
        calls: the policy.
        embedder: compares probe and chunks.
        tokenizer: counts the tokens of chunks.
        journals: where finished steps are.
        pairs: where pairs go.
        progress: told of every round; its counts end in the summary.
        until: the stage after which to stop: `probe`, `rollout` or `pairs`.
        allow_truncated: whether outputs that were cut off may become chosen or rejected.
    """

    def __init__(
        self,
        config: LongMabConfig,
        seed: int,
        prompts: Prompts,
        calls: Calls,
        embedder: Embedder,
        tokenizer: "PreTrainedTokenizerBase",
        journals: Journals,
        pairs: Pairs,
        progress: Progress,
        until: str = "pairs",
        allow_truncated: bool = False,
    ) -> None:
        self._config = config
        self._seed = seed
        self._prompts = prompts
        self._calls = calls
        self._embedder = embedder
        self._tokenizer = tokenizer
        self._journals = journals
        self._pairs = pairs
        self._progress = progress
        self._until = until
        self._allow_truncated = allow_truncated

    async def work(self, question: Question) -> None:
        """Takes one question from wherever it stands to its pair, or to the knowledge that it gives none.

        Raises:
            CallFailed: a call was lost, or the responses do not fit the cutoff length.
            UserError: no call can work.
        """
        if is_in_every_text(question.answers):
            self._progress.count("gold in every text")
        known = self._journals.probes.rows(question.id)
        finished = self._journals.finished_rounds(question.id, self._config.rounds)
        chunks: list[str] = []
        if not known or (known[-1]["kept"] and len(finished) < self._config.rounds):
            chunks = await asyncio.to_thread(
                chunk_sentences, question.context, self._tokenizer, self._config.chunk_size, self._config.chunk_overlap
            )
        if known:
            probe = record_of(Probe, known[-1])
            self._progress.skip(1)
        else:
            probe = await self._probe(question, chunks)
            self._progress.step()
        if not probe.kept:
            self._pairs.drop(question.id)
            self._progress.count("left out")
            self._progress.skip(0 if self._until == "probe" else self._config.rounds)
        if not probe.kept or self._until == "probe":
            return
        rollouts = await self._roll_out(question, probe, chunks, finished)
        if self._until == "pairs":
            await self._pair(question, rollouts)

    async def _probe(self, question: Question, chunks: list[str]) -> Probe:
        config = self._config
        completion = await self._calls.complete(
            "probe",
            question.id,
            0,
            config.sampling,
            self._prompts.probe(question),
            question.context,
            behind=config.rounds,
        )
        kept = arrives_at(completion.text, question.answers)
        values: list[float] = []
        if kept:
            values = await arm_values(
                config.init, question.id, question.question, completion.text, chunks, self._embedder, self._seed
            )
        probe = Probe(question.id, question.digest(*self._prompts.texts), kept, completion.text, values)
        self._journals.probes.append(asdict(probe))
        return probe

    async def _roll_out(
        self, question: Question, probe: Probe, chunks: list[str], finished: dict[int, Rollout]
    ) -> list[Rollout]:
        config = self._config
        self._progress.skip(len(finished))
        if config.selection == "random":
            # No round waits for another.
            drawn = random_arms(len(probe.initial_values), config.top_k, config.rounds, f"{self._seed}/{question.id}")
            rounds = [
                self._round(question, chunks, round, arms, 0, lambda reward: probe.initial_values)
                for round, arms in enumerate(drawn)
                if round not in finished
            ]
            made = {rollout.round: rollout for rollout in await all_settled(*rounds)}
            return [(finished | made)[round] for round in range(config.rounds)]

        sampler = UCBChunkSampler(probe.initial_values)

        def learn(arms: list[int], reward: float) -> list[float]:
            sampler.update(arms, reward)
            return sampler.values.tolist()

        rollouts: list[Rollout] = []
        for round in range(config.rounds):
            arms = sampler.select(config.top_k)
            if rollout := finished.get(round):
                learn(rollout.arms, rollout.reward)
            else:
                behind = config.rounds - 1 - round
                rollout = await self._round(question, chunks, round, arms, behind, partial(learn, arms))
            rollouts.append(rollout)
        return rollouts

    async def _round(
        self,
        question: Question,
        chunks: list[str],
        round: int,
        arms: list[int],
        behind: int,
        learn: Callable[[float], list[float]],
    ) -> Rollout:
        """One roll-out, written down; `learn` takes its reward and tells all arm values after it."""
        completion = await self._calls.complete(
            "rollout",
            question.id,
            round,
            self._config.sampling,
            self._prompts.rollout(question),
            "\n".join(chunks[arm] for arm in arms),
            behind=behind,
        )
        reward = rollout_reward(completion.text, question.answers, self._config.answer_form)
        rollout = Rollout(question.id, round, arms, completion.text, reward, learn(reward), completion.truncated)
        self._journals.rollouts.append(asdict(rollout))
        self._progress.step()
        return rollout

    async def _pair(self, question: Question, rollouts: list[Rollout]) -> None:
        usable = [one for one in rollouts if may_train(one.output, one.truncated, self._allow_truncated)]
        picked = None
        if usable:
            picked = best_and_worst(question.id, usable, question.answers, self._seed, self._config.answer_form)
        if picked is None:
            self._pairs.drop(question.id)
            self._progress.count("all equal" if len(usable) >= _SIDES else "cut off")
            return
        chosen, rejected, best, worst = picked
        await self._pairs.add(
            question,
            self._prompts.rollout(question),
            ScoredResponse(chosen.output, best, chosen.round),
            ScoredResponse(rejected.output, worst, rejected.round),
        )
        self._progress.count("pairs")


def all_rolled_out(output_dir: Path, question_ids: Collection[str], rounds: int) -> bool:
    """Whether a run, looked at from outside, needs no model any more; opens nothing for writing."""
    kept = {row["id"]: row["kept"] for row in read_rows(output_dir / PROBES, names(Probe))}
    if any(question_id not in kept for question_id in question_ids):
        return False
    done: dict[str, set[int]] = {}
    for row in read_rows(output_dir / ROLLOUTS, names(Rollout)):
        done.setdefault(row["id"], set()).add(row["round"])
    wanted = set(range(rounds))
    return all(not kept[question_id] or wanted <= done.get(question_id, set()) for question_id in question_ids)


def bandit_summary(journals: Journals, question_ids: Sequence[str], rounds: int) -> dict[str, object]:
    """What the roll-outs of a run amount to: rewards and arms.

    Args:
        journals: the run's.
        question_ids: the questions that count.
        rounds: rounds a question.

    Returns:
        `rollouts`, `mean_reward` and its mean in the first and last third of the rounds, `reward_histogram` (counts
        in five equal bins of [0, 1]), `unread_answers` (outputs for which `has_unread_answer` holds), `mean_arms` a
        question and `mean_arms_tried`. Means are None without roll-outs.
    """
    histogram: Counter[int] = Counter()
    all_rewards: list[float] = []
    first: list[float] = []
    last: list[float] = []
    arms: list[int] = []
    tried: list[int] = []
    unread = 0
    third = max(rounds // 3, 1)
    for question_id in question_ids:
        rollouts = journals.finished_rounds(question_id, rounds).values()
        if not rollouts:
            continue
        for rollout in rollouts:
            all_rewards.append(rollout.reward)
            unread += has_unread_answer(rollout.output)
            histogram[min(int(rollout.reward * 5), 4)] += 1
            if rollout.round < third:
                first.append(rollout.reward)
            if rollout.round >= rounds - third:
                last.append(rollout.reward)
        arms.append(len(next(iter(rollouts)).values))
        tried.append(len({arm for rollout in rollouts for arm in rollout.arms}))
    return {
        "rollouts": len(all_rewards),
        "mean_reward": _mean(all_rewards),
        "mean_reward_first_third": _mean(first),
        "mean_reward_last_third": _mean(last),
        "reward_histogram": [histogram[bin] for bin in range(5)],
        "unread_answers": unread,
        "mean_arms": _mean(arms),
        "mean_arms_tried": _mean(tried),
    }


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
