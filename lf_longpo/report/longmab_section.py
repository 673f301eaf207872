"""The report's sections about the rollouts of a LongMab-PO run: rewards, learning, and the chosen arms."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

import numpy as np

from lf_longpo.config import LongMabGenerateConfig
from lf_longpo.data.records import Probe, Rollout, names
from lf_longpo.longmab.rollout_files import PROBES, ROLLOUTS
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


def longmab_sections(run: RunFolder) -> list[Section]:
    """The sections about probes and rewards, learning, and arms."""
    probes = {row["id"]: row["kept"] for row in run.rows(PROBES, tuple(names(Probe)))}
    by_round: dict[int, dict[str, float]] = {}
    arms: dict[str, int] = {}
    chosen: dict[str, Counter[int]] = {}
    seen: dict[str, int] = {}  # by question, a bit per round
    unread = 0
    for row in run.rows(ROLLOUTS, tuple(names(Rollout))):
        id, round = row["id"], row["round"]
        if seen.get(id, 0) >> round & 1:
            continue
        seen[id] = seen.get(id, 0) | 1 << round
        by_round.setdefault(round, {})[id] = row["reward"]
        arms[id] = len(row["values"])
        chosen.setdefault(id, Counter()).update(row["arms"])
        unread += has_unread_answer(row["output"])
    rewards = [reward for of_round in by_round.values() for reward in of_round.values()]
    first = Section("Rollouts")
    first.facts["questions with a successful probe"] = f"{sum(probes.values()):,} of {len(probes):,}"
    first.facts["rollouts"] = f"{len(rewards):,}"
    if not rewards:
        first.notes.append("There are no rollouts yet.")
        return [first]
    first.facts["mean reward"] = f"{fmean(rewards):.3f}"
    assert isinstance(run.config, LongMabGenerateConfig)
    stops = run.config.longmab.stop is not None
    first.rewards = _rewards(by_round, rewards, stops)
    first.facts["rollouts with reward 0"] = f"{first.rewards.lowest:.0%}"
    first.facts["answers in Markdown that the published rule does not read"] = f"{unread:,}"
    first.warnings += answer_advice(run.config.longmab.answer_form, len(rewards), unread)
    first.warnings += gold_advice((run.summary() or {}).get("gold_in_every_text", 0))
    caption = "The reward is the mean of F1 and SubEM against the gold answer: 0 is wrong, 1 is correct."
    first.plots.append(Plot(histogram({"rollouts": rewards}, "reward", "rollouts", (0.0, 1.0)), caption))
    rounds = {id: mask.bit_count() for id, mask in seen.items()}
    if stops:
        first.facts["rounds per question, mean"] = f"{fmean(rounds.values()):.1f}"
    return [first, _learning(by_round, first.rewards, stops), _arms(arms, rounds, chosen)]


def rollout_notes(run: RunFolder, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """A note about each wanted rollout, by question and round: the chunks in its prompt."""
    rows = ((row["id"], row["round"], row["arms"]) for row in run.rows(ROLLOUTS, tuple(names(Rollout))))
    return {
        (id, round): f"round {round + 1}, prompt with chunks {', '.join(str(arm + 1) for arm in arms)}"
        for id, round, arms in rows
        if (id, round) in wanted
    }


def _mean_shares(ordered: Sequence[np.ndarray], ranks: int) -> list[float]:
    """The mean over questions of the shares of their most chosen chunk, second most chosen chunk, and so on."""
    padded = [np.pad(shares[:ranks], (0, max(0, ranks - len(shares)))) for shares in ordered]
    means: list[float] = np.mean(padded, axis=0).tolist()
    return means


def _by_chance(
    arms: Mapping[str, int], rounds: Mapping[str, int], chosen: Mapping[str, Counter[int]]
) -> list[np.ndarray]:
    """The sorted shares if the same number of chunks is drawn at random in the same number of rounds."""
    draw, simulated = np.random.default_rng(0), []
    for id in sorted(chosen)[:_SIMULATED]:
        picked = max(1, round(chosen[id].total() / rounds[id]))
        for _ in range(_REPEATED):
            order = draw.random((rounds[id], arms[id])).argsort(axis=1)[:, :picked]
            counts = np.bincount(order.ravel(), minlength=arms[id])
            simulated.append(np.sort(counts)[::-1] / counts.sum())
    return simulated


def _spread(arm: int, arms: int) -> np.ndarray:
    """The share of an arm's text in each part of the document, if all arms have the same length."""
    edges = np.linspace(0.0, 1.0, _PARTS + 1)
    return np.diff(np.clip(edges * arms - arm, 0.0, 1.0))


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


def _rewards(by_round: dict[int, dict[str, float]], rewards: Sequence[float], stops: bool) -> Rewards:
    """Rewards, and their change over the rounds for each question with rollouts in both thirds.

    Where questions stop early there is no change: which questions have late rounds depends on their rewards.
    """
    rounds = [by_round[round] for round in sorted(by_round)]
    third = max(len(rounds) // 3, 1)
    first, last = (_by_question(part) for part in (rounds[:third], rounds[-third:]))
    shared = first.keys() & last.keys() if len(rounds) > 1 and not stops else set()
    return Rewards(
        sum(reward == 0 for reward in rewards) / len(rewards),
        sum(reward == 1 for reward in rewards) / len(rewards),
        [last[id] - first[id] for id in sorted(shared)],
        fmean(first[id] for id in shared) if shared else 0.0,
        fmean(last[id] for id in shared) if shared else 0.0,
    )


def _by_question(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean reward of each question over some rounds."""
    ids = {id for of_round in rounds for id in of_round}
    return {id: fmean(of_round[id] for of_round in rounds if id in of_round) for id in ids}


def _learning(by_round: dict[int, dict[str, float]], change: Rewards, stops: bool) -> Section:
    section = Section("Does the bandit learn?")
    rounds = [list(by_round[round].values()) for round in sorted(by_round)]
    means = [fmean(rewards) for rewards in rounds]
    errors = [
        _HALF_INTERVAL * float(np.std(rewards, ddof=1)) / len(rewards) ** 0.5 if len(rewards) > 1 else 0.0
        for rewards in rounds
    ]
    meaning = _STOPS if stops else _CAPTIONS[trend_of(change.differences)]
    caption = f"{meaning} The band is the 95% confidence interval of the mean."
    section.plots.append(Plot(line(means, errors, "round", "mean reward"), caption))
    if change.differences:
        section.facts["mean reward in the first third"] = f"{change.first:.3f}"
        section.facts["mean reward in the last third"] = f"{change.last:.3f}"
    return section


def _arms(arms: dict[str, int], rounds: dict[str, int], chosen: dict[str, Counter[int]]) -> Section:
    section = Section("Which chunks were chosen")
    touched = [len(chosen[id]) / arms[id] for id in chosen if arms[id]]
    section.facts["chunks (arms) per question, mean"] = f"{fmean(arms.values()):.1f}"
    section.facts["chunks chosen at least once"] = f"{fmean(touched):.0%}"
    ranks = min(max(arms.values()), 2 * _PARTS)
    ordered = [np.sort(np.array(list(counts.values())))[::-1] / counts.total() for counts in chosen.values()]
    shares = _mean_shares(ordered, ranks)
    section.plots.append(
        Plot(
            bars(
                shares,
                [str(rank) if rank % 5 == 0 or rank == 1 else "" for rank in range(1, ranks + 1)],
                "chunks of a question, most chosen first",
                "share of the question's choices",
                _mean_shares(_by_chance(arms, rounds, chosen), ranks),
                "with random choices",
            ),
            "Left bars above their lines: the bandit returns to a few chunks more often than random choices do. Left "
            "bars below their lines: the bandit spreads its choices.",
        )
    )
    by_part = np.zeros(_PARTS)
    for id, counts in chosen.items():
        for arm, times in counts.items():
            by_part += times * _spread(arm, arms[id])
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
