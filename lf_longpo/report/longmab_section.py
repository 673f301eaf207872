"""The report's sections about the rollouts of a LongMab-PO run: rewards, learning, and the chosen arms."""

from array import array
from collections.abc import Sequence
from functools import cache
from math import isnan
from statistics import fmean
from typing import NamedTuple

import numpy as np

from lf_longpo.config import LongMabGenerateConfig
from lf_longpo.data.records import Probe, names
from lf_longpo.files.journal import Row
from lf_longpo.longmab.rollout_files import PROBES
from lf_longpo.report.advice import answer_advice, gold_advice
from lf_longpo.report.conclusions import Trend, trend_of
from lf_longpo.report.figures import Plot, bars, histogram, line
from lf_longpo.report.section import Rewards, Section
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.text.answers import has_unread_answer

# Half the width of a 95% interval, in standard errors.
_HALF_INTERVAL = 1.96
# The number of questions that are simulated with random choices, and how often each.
_SIMULATED, _REPEATED = 200, 10
# Parts of a document; choices are counted per part.
_PARTS = 10


class Rollouts(NamedTuple):
    """What the report needs of all rollouts."""

    rewards: np.ndarray
    """[questions, rounds]; NaN where there is no rollout."""
    choices: list[np.ndarray]
    """By question, how often each chunk (arm) was chosen."""
    unread: int
    """Outputs for which `has_unread_answer` holds."""


class LongMabFigures:
    """Collects the rollouts of a run: about 350 bytes per question. Makes the sections about them.

    If a round of a question was written twice, the first row counts.

    Args:
        run: the run.
    """

    def __init__(self, run: RunFolder) -> None:
        assert isinstance(run.config, LongMabGenerateConfig)
        self._run = run
        self._settings = run.config.longmab
        self._rounds = self._settings.rounds
        self._numbers: dict[str, int] = {}
        self._rewards: list[array[float]] = []
        self._choices: list[array[int]] = []
        self._unread = 0

    def add(self, row: Row) -> None:
        """Takes a rollout."""
        number, round = self._numbers.setdefault(row["id"], len(self._numbers)), row["round"]
        if number == len(self._rewards):
            self._rewards.append(array("d", [float("nan")]) * self._rounds)
            self._choices.append(array("I", [0]) * len(row["values"]))
        rewards, choices = self._rewards[number], self._choices[number]
        if round >= self._rounds or not isnan(rewards[round]):
            return
        rewards[round] = row["reward"]
        for arm in row["arms"]:
            choices[arm] += 1
        self._unread += has_unread_answer(row["output"])

    def rollouts(self) -> Rollouts:
        """All rollouts, ordered by the questions' ids, so that a resumed run gives the same page."""
        order = [self._numbers[id] for id in sorted(self._numbers)]
        rewards = np.array(self._rewards).reshape(-1, self._settings.rounds)[order]
        return Rollouts(rewards, [np.asarray(self._choices[number]) for number in order], self._unread)

    def sections(self) -> list[Section]:
        """The sections about probes and rewards, learning, and arms."""
        probes = {row["id"]: row["kept"] for row in self._run.rows(PROBES, tuple(names(Probe)))}
        rollouts = self.rollouts()
        rewards = rollouts.rewards[~np.isnan(rollouts.rewards)]
        first = Section("Rollouts")
        first.facts["questions with a successful probe"] = f"{sum(probes.values()):,} of {len(probes):,}"
        first.facts["rollouts"] = f"{len(rewards):,}"
        if not len(rewards):
            first.notes.append("There are no rollouts yet.")
            return [first]
        first.facts["mean reward"] = f"{rewards.mean():.3f}"
        stops = self._settings.stop is not None
        first.rewards = _rewards(rollouts.rewards, rewards, stops)
        first.facts["rollouts with reward 0"] = f"{first.rewards.lowest:.0%}"
        first.facts["answers in Markdown that the published rule does not read"] = f"{rollouts.unread:,}"
        first.warnings += answer_advice(self._settings.answer_form, len(rewards), rollouts.unread)
        first.warnings += gold_advice((self._run.summary() or {}).get("gold_in_every_text", 0))
        caption = "The reward is the mean of F1 and SubEM against the gold answer: 0 is wrong, 1 is correct."
        first.plots.append(Plot(histogram({"rollouts": rewards}, "reward", "rollouts", (0.0, 1.0)), caption))
        if stops:
            first.facts["rounds per question, mean"] = f"{len(rewards) / len(rollouts.rewards):.1f}"
        return [first, _learning(rollouts.rewards, first.rewards, stops), _arms(rollouts)]


def _mean_shares(ordered: Sequence[np.ndarray], ranks: int) -> list[float]:
    """The mean over questions of the shares of their most chosen chunk, second most chosen chunk, and so on."""
    total = np.zeros(ranks)
    for shares in ordered:
        total[: len(shares)] += shares[:ranks]
    means: list[float] = (total / len(ordered)).tolist()
    return means


def _by_chance(rollouts: Rollouts) -> list[np.ndarray]:
    """The sorted shares if the same number of chunks is drawn at random in the same number of rounds."""
    draw, simulated = np.random.default_rng(0), []
    for rewards, counts in list(zip(rollouts.rewards, rollouts.choices, strict=True))[:_SIMULATED]:
        rounds = np.count_nonzero(~np.isnan(rewards))
        picked = max(1, round(counts.sum() / rounds))
        for _ in range(_REPEATED):
            order = draw.random((rounds, len(counts))).argsort(axis=1)[:, :picked]
            simulated.append(_sorted_shares(np.bincount(order.ravel(), minlength=len(counts))))
    return simulated


def _sorted_shares(counts: np.ndarray) -> np.ndarray:
    """The shares of all choices, the largest first."""
    shares: np.ndarray = np.sort(counts)[::-1] / counts.sum()
    return shares


@cache
def _spread(arms: int) -> np.ndarray:
    """The share of each arm's text in each part of the document, if all arms have the same length: [arms, parts]."""
    edges = np.linspace(0.0, 1.0, _PARTS + 1)
    return np.diff(np.clip(edges * arms - np.arange(arms)[:, None], 0.0, 1.0))


# What the line of the mean rewards shows, by the result of the sign test.
_CAPTIONS: dict[Trend, str] = {
    "rises": "The rewards of most questions rise, beyond chance: later rounds choose better chunks.",
    "falls": "The rewards of most questions fall, beyond chance: later rounds choose worse chunks.",
    "unclear": "The change of the rewards over the rounds is within chance.",
    "flat": "The rewards of no question change between the first and the last third of the rounds.",
}
_STOPS = (
    "Questions end early (longmab.stop), so late rounds belong to questions without the full reward difference. The "
    "line does not show whether the bandit learns."
)


def _rewards(by_question: np.ndarray, rewards: np.ndarray, stops: bool) -> Rewards:
    """Rewards, and their change over the rounds for each question with rollouts in both thirds.

    Where questions stop early, the change is unknown: which questions have late rounds depends on their rewards.

    Args:
        by_question: [questions, rounds], see `Rollouts`.
        rewards: those that are there.
        stops: whether questions stop early.
    """
    rounds = by_question[:, ~np.isnan(by_question).all(axis=0)]
    third = max(rounds.shape[1] // 3, 1)
    first, last = (_mean_of_each(part) for part in (rounds[:, :third], rounds[:, -third:]))
    known = rounds.shape[1] > 1 and not stops
    shared = ~np.isnan(first) & ~np.isnan(last) if known else np.zeros(len(first), bool)
    return Rewards(
        float(np.mean(rewards == 0)),
        float(np.mean(rewards == 1)),
        (last - first)[shared].tolist(),
        float(first[shared].mean()) if shared.any() else 0.0,
        float(last[shared].mean()) if shared.any() else 0.0,
    )


def _mean_of_each(rewards: np.ndarray) -> np.ndarray:
    """The mean reward of each question over some rounds; NaN without rollouts in them."""
    made = ~np.isnan(rewards)
    with np.errstate(invalid="ignore"):
        means: np.ndarray = np.where(made, rewards, 0.0).sum(axis=1) / made.sum(axis=1)
    return means


def _learning(by_question: np.ndarray, change: Rewards, stops: bool) -> Section:
    section = Section("Does the bandit learn?")
    made = ~np.isnan(by_question)
    # The rounds of a run that goes on have different questions: their means would differ for that reason.
    complete = made.all(axis=1)
    whole = complete.any() and not stops
    shown = by_question[complete] if whole else by_question[:, made.any(axis=0)]
    numbers = (~np.isnan(shown)).sum(axis=0)
    means = np.nanmean(shown, axis=0)
    # The sum of squares over n - 1; 0 for a single question.
    deviations = np.sqrt(np.nansum((shown - means) ** 2, axis=0) / np.maximum(numbers - 1, 1))
    errors = _HALF_INTERVAL * deviations / numbers**0.5
    meaning = _STOPS if stops else _CAPTIONS[trend_of(change.differences)]
    caption = f"{meaning} The band is the 95% confidence interval of the mean."
    if whole and complete.sum() < len(complete):
        caption += f" The line shows the {complete.sum():,} questions with all rounds."
    section.plots.append(Plot(line(means.tolist(), errors.tolist(), "round", "mean reward"), caption))
    if change.differences:
        section.facts["mean reward in the first third"] = f"{change.first:.3f}"
        section.facts["mean reward in the last third"] = f"{change.last:.3f}"
    return section


def _arms(rollouts: Rollouts) -> Section:
    section = Section("Which chunks were chosen")
    arms, chosen = [len(counts) for counts in rollouts.choices], rollouts.choices
    section.facts["chunks (arms) per question, mean"] = f"{fmean(arms):.1f}"
    section.facts["chunks chosen at least once"] = f"{fmean(np.count_nonzero(c) / len(c) for c in chosen):.0%}"
    ranks = min(max(arms), 2 * _PARTS)
    shares = _mean_shares([_sorted_shares(counts) for counts in chosen], ranks)
    section.plots.append(
        Plot(
            bars(
                shares,
                [str(rank) if rank % 5 == 0 or rank == 1 else "" for rank in range(1, ranks + 1)],
                "chunks of a question, most chosen first",
                "share of the question's choices",
                _mean_shares(_by_chance(rollouts), ranks),
                "with random choices",
            ),
            "Left bars above their lines: the bandit returns to a few chunks more often than random choices do. Left "
            "bars below their lines: the bandit spreads its choices.",
        )
    )
    by_part = np.zeros(_PARTS)
    for counts in chosen:
        by_part += counts @ _spread(len(counts))
    section.plots.append(
        Plot(
            bars(
                (by_part / by_part.sum()).tolist(),
                [f"{100 * part // _PARTS}" for part in range(_PARTS)],
                "position in the document, percent",
                "share of all choices",
                [1 / _PARTS] * _PARTS,
                "if the position does not matter",
            ),
            "The positions of the chosen chunks in their documents.",
        )
    )
    return section
