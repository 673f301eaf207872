"""What do fewer calls cost LongMab-PO? Simulates questions; prints pairs and quality against calls as Markdown.

    python scripts/bandit_study.py                          # 1,000 questions of each kind; minutes on one core
    python scripts/bandit_study.py --questions 200 --kinds small graded

The samplers `random`, `ucb` and `linear` are those of the package; what did not help is kept here only. A simulated
question has one chunk with the evidence, or two that are needed together. A rollout that sees the evidence is right
with the question's own probability q, another one with probability p. A quarter of the questions have q = p = 0.01 (the
model cannot answer them), a tenth has q = 0.95 and p = 0.9 (it needs no text). All samplers see the same questions and
the same random numbers.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lf_longpo.longmab.bandit import LinearChunkSampler, RandomChunkSampler, UCBChunkSampler

ROUNDS = 30
_CANNOT, _NEEDS_NO_TEXT = 0.25, 0.1


@dataclass(frozen=True)
class Kind:
    """A kind of questions."""

    text: str
    arms: int
    needed: int = 1
    """Chunks that must be seen together."""
    top_k: int = 4
    q: float = 0.7
    """Mean of q; its standard deviation is 0.3 q."""
    p: float = 0.05
    known: float = 0.1
    """What the evidence adds to a first value. First values are normal with mean 0.3 and standard deviation 0.1."""
    graded: bool = False
    """Whether 40% of the right answers have a reward in [0.5, 0.9] and some wrong ones one in [0.15, 0.65] (30% with
    the evidence, 10% without), else 1 and 0."""


KINDS = {
    "good": Kind("40 chunks, 1 has the evidence, good first values", 40, known=0.25),
    "weak": Kind("40 chunks, 1 has the evidence, good first values, a weak model", 40, known=0.25, q=0.25, p=0.03),
    "two": Kind("43 chunks, 2 needed together", 43, needed=2, known=0.2),
    "twelve": Kind("12 chunks, 1 has the evidence, fair first values", 12),
    "graded": Kind("12 chunks, 1 has the evidence, fair first values, graded rewards", 12, graded=True),
    "blind": Kind("24 chunks, 1 has the evidence, first values know nothing", 24, known=0.0),
    "misled": Kind("12 chunks, 1 has the evidence, misleading first values", 12, known=-0.1),
    "small": Kind("4 chunks, 1 shown at a time, a weak model", 4, top_k=1, q=0.25, p=0.03),
}


class LessBonus(UCBChunkSampler):
    """UCB with another bonus: width * sqrt(2 ln t / (n + observations)).

    Args:
        observations: that the first value counts for; with hardly any, every arm is tried before one is repeated.
    """

    def __init__(self, initial_values: Sequence[float], width: float, observations: float) -> None:
        super().__init__(initial_values)
        self._width, self._observations = width, observations

    def select(self, top_k: int) -> list[int]:
        """As of `UCBChunkSampler`."""
        self.round += 1
        bonus = self._width * np.sqrt(2 * np.log(self.round) / (self.counts + self._observations))
        return sorted(np.argsort(-(self.values + bonus), kind="stable")[:top_k].tolist())


class Thompson(UCBChunkSampler):
    """Selects by values drawn from normal distributions that narrow with each round of the arm."""

    def __init__(self, initial_values: Sequence[float], seed: int, width: float) -> None:
        super().__init__(initial_values)
        self._draw, self._width = np.random.default_rng(seed), width

    def select(self, top_k: int) -> list[int]:
        """As of `UCBChunkSampler`."""
        noise = self._draw.standard_normal(len(self.values)) / np.sqrt(self.counts + 1)
        return sorted(np.argsort(-(self.values + self._width * noise), kind="stable")[:top_k].tolist())


class HighestOnly(LinearChunkSampler):
    """The linear model without its search for a wrong answer."""

    def select(self, top_k: int) -> list[int]:
        """As of `LinearChunkSampler`, always the highest bounds."""
        width = np.sqrt(np.diag(self._covariance)[:-1] * np.log(len(self._rewards) + 2))
        return sorted(np.argsort(-(self.values + width), kind="stable")[:top_k].tolist())


SAMPLERS: dict[str, Callable[[np.ndarray, int], Any]] = {
    "random": lambda values, seed: RandomChunkSampler(values, str(seed)),
    "ucb (published)": lambda values, seed: UCBChunkSampler(values),
    "ucb, a third of the bonus": lambda values, seed: LessBonus(values, 1 / 3, 1e-6),
    "ucb, a tenth of the bonus": lambda values, seed: LessBonus(values, 0.1, 1e-6),
    "ucb, a fifth, first value observed": lambda values, seed: LessBonus(values, 0.2, 1.0),
    "Thompson": lambda values, seed: Thompson(values, seed, 0.3),
    "linear, highest only": lambda values, seed: HighestOnly(values),
    "linear": lambda values, seed: LinearChunkSampler(values),
}


@dataclass(frozen=True)
class Traces:
    """All rounds of many questions, each questions x rounds."""

    rewards: np.ndarray
    shown: np.ndarray
    """Whether the evidence was in the prompt."""


def traces(kind: Kind, sampler: str, questions: int) -> Traces:
    """All rounds of simulated questions with one sampler."""
    rewards, shown = np.zeros((questions, ROUNDS)), np.zeros((questions, ROUNDS), dtype=bool)
    for number in range(questions):
        draw = np.random.default_rng([number, kind.arms, kind.needed])
        evidence = draw.choice(kind.arms, kind.needed, replace=False)
        values = draw.normal(0.3, 0.1, kind.arms)
        values[evidence] += kind.known
        group, own = draw.random(), float(np.clip(draw.normal(kind.q, 0.3 * kind.q), 0.05, 1.0))
        q, p = (0.01, 0.01) if group < _CANNOT else (own, kind.p)
        if group > 1 - _NEEDS_NO_TEXT:
            q, p = 0.95, 0.9
        chance, near, size = draw.random((3, ROUNDS))
        arms = SAMPLERS[sampler](values, number)
        for i in range(ROUNDS):
            selected = arms.select(kind.top_k)
            shown[number, i] = seen = set(evidence.tolist()) <= set(selected)
            reward = float(chance[i] < (q if seen else p))
            if kind.graded and reward and near[i] < 0.4:
                reward = 0.5 + 0.4 * size[i]
            elif kind.graded and not reward and near[i] < (0.3 if seen and q > p else 0.1):
                reward = 0.15 + 0.5 * size[i]
            rewards[number, i] = reward
            arms.update(selected, reward)
    return Traces(rewards, shown)


def rounds_made(
    rewards: np.ndarray, rounds: int, stop: float | None, least: int = 1, patience: int = ROUNDS
) -> np.ndarray:
    """How many rounds each question has.

    Args:
        rewards: questions x rounds.
        rounds: the most rounds of a question.
        stop: `longmab.stop`, with one pair per question.
        least: the question has at least this many rounds.
        patience: it also ends if its difference has not grown for this many rounds.
    """
    gaps = np.maximum.accumulate(rewards, axis=1) - np.minimum.accumulate(rewards, axis=1)
    numbers = np.arange(1, ROUNDS + 1)
    grown = np.diff(gaps, axis=1, prepend=0.0) > 0
    waited = numbers - np.maximum.accumulate(np.where(grown, numbers, 0), axis=1)
    ends = (waited >= patience) | (gaps >= (2.0 if stop is None else stop))
    ends = (ends & (numbers >= least)) | (numbers == rounds)
    return 1 + ends.argmax(axis=1)


def row(found: Traces, made: np.ndarray) -> str:
    """Calls, pairs and quality of questions that end after `made` rounds, as cells of a table."""
    inside = np.arange(ROUNDS) < made[:, None]
    best = np.where(inside, found.rewards, -1.0).max(axis=1)
    gaps = best - np.where(inside, found.rewards, 2.0).min(axis=1)
    paired = gaps > 0
    is_best = inside & (found.rewards == best[:, None])
    supported = (is_best & found.shown).sum(axis=1) / is_best.sum(axis=1)
    cells = (
        f"{1 + made.mean():.1f}",  # with the probe
        f"{paired.mean():.3f}",
        f"{gaps[paired].mean():.2f}",
        f"{supported[paired].mean():.2f}",
        f"{found.shown[inside].mean():.2f}",
    )
    return " | ".join(cells)


_CELLS = "calls | pairs | gap | chosen saw evidence | rounds with evidence"
# How questions end, and the sampler of the table that compares it.
_ENDS: dict[str, dict[str, Any]] = {
    **{f"{rounds} rounds": {"rounds": rounds, "stop": None} for rounds in (5, 8, 12, 20, 30)},
    **{f"at most {rounds} rounds, stop 1": {"rounds": rounds, "stop": 1.0} for rounds in (5, 8, 12, 20, 30)},
    **{f"at most {rounds} rounds, stop 0.5": {"rounds": rounds, "stop": 0.5} for rounds in (12, 30)},
    "at most 30 rounds, stop 1, at least 6": {"rounds": 30, "stop": 1.0, "least": 6},
    **{
        f"at most 30 rounds, stop 1 or no growth in {patience}": {"rounds": 30, "stop": 1.0, "patience": patience}
        for patience in (8, 12)
    },
}
_SAMPLER = "linear"


def main() -> None:
    """Prints two tables for each kind of questions: the samplers, and how questions end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=1000, help="of each kind (%(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    for name in options.kinds:
        print(f"### {KINDS[name].text}\n\n| sampler | ends | {_CELLS} |\n| --- | --- |{' --- |' * 5}", flush=True)
        found = {}
        for sampler in SAMPLERS:
            found[sampler] = traces(KINDS[name], sampler, options.questions)
            for text in ("30 rounds", "at most 30 rounds, stop 1"):
                made = rounds_made(found[sampler].rewards, **_ENDS[text])
                print(f"| {sampler} | {text} | {row(found[sampler], made)} |", flush=True)
        print(f"\nSampler: {_SAMPLER}.\n\n| ends | {_CELLS} |\n| --- |{' --- |' * 5}")
        for text, ends in _ENDS.items():
            print(f"| {text} | {row(found[_SAMPLER], rounds_made(found[_SAMPLER].rewards, **ends))} |")
        print(flush=True)


if __name__ == "__main__":
    main()
