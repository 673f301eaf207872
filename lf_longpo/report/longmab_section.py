"""What the roll-outs of a LongMab-PO run tell: rewards, whether the bandit learns, and which arms it chose."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

import numpy as np

from lf_longpo.config import LongMabGenerateConfig
from lf_longpo.data.records import Probe, Rollout, names
from lf_longpo.longmab.rollout_files import PROBES, ROLLOUTS
from lf_longpo.report.advice import answer_advice, gold_advice
from lf_longpo.report.figures import Plot, bars, histogram, line
from lf_longpo.report.section import Section
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.text.answers import has_unread_answer

# Half a 95% interval, in standard errors.
_SURE = 1.96
# Questions whose choices are also drawn by chance, and how often.
_SIMULATED, _REPEATED = 200, 10
# Parts of a document that choices are counted in.
_PARTS = 10


def longmab_sections(run: RunFolder) -> list[Section]:
    """Probes, rewards and arms."""
    probes = {row["id"]: row["kept"] for row in run.rows(PROBES, tuple(names(Probe)))}
    by_round: dict[int, list[float]] = {}
    arms: dict[str, int] = {}
    chosen: dict[str, Counter[int]] = {}
    seen: dict[str, int] = {}
    unread = 0
    for row in run.rows(ROLLOUTS, tuple(names(Rollout))):
        id, round = row["id"], row["round"]
        if seen.get(id, 0) >> round & 1:
            continue
        seen[id] = seen.get(id, 0) | 1 << round
        by_round.setdefault(round, []).append(row["reward"])
        arms[id] = len(row["values"])
        chosen.setdefault(id, Counter()).update(row["arms"])
        unread += has_unread_answer(row["output"])
    rewards = [reward for its in by_round.values() for reward in its]
    first = Section("Roll-outs")
    first.facts["questions kept by their probe"] = f"{sum(probes.values()):,} of {len(probes):,}"
    first.facts["roll-outs"] = f"{len(rewards):,}"
    if not rewards:
        first.notes.append("No roll-out yet.")
        return [first]
    first.facts["mean reward"] = f"{fmean(rewards):.3f}"
    first.facts["roll-outs with a reward of 0"] = f"{sum(reward == 0 for reward in rewards) / len(rewards):.0%}"
    first.facts["outputs with an answer in Markdown that the published rule does not read"] = f"{unread:,}"
    assert isinstance(run.config, LongMabGenerateConfig)
    first.warnings += answer_advice(run.config.longmab.answer_form, len(rewards), unread)
    first.warnings += gold_advice((run.summary() or {}).get("gold_in_every_text", 0))
    caption = "A reward is the mean of F1 and SubEM against the gold answer: 0 is wrong, 1 is right."
    first.plots.append(Plot(histogram({"roll-outs": rewards}, "reward", "roll-outs", (0.0, 1.0)), caption))
    rounds = {id: mask.bit_count() for id, mask in seen.items()}
    return [first, _learning(by_round), _arms(arms, rounds, chosen)]


def longmab_sides(run: RunFolder, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """What each of the wanted roll-outs was shown, by question and round."""
    rows = ((row["id"], row["round"], row["arms"]) for row in run.rows(ROLLOUTS, tuple(names(Rollout))))
    return {
        (id, round): f"round {round + 1}, saw chunks {', '.join(str(arm + 1) for arm in arms)}"
        for id, round, arms in rows
        if (id, round) in wanted
    }


def _mean_shares(ordered: Sequence[np.ndarray], ranks: int) -> list[float]:
    """The mean over questions of the share of their first, second, ... most chosen chunk."""
    padded = [np.pad(shares[:ranks], (0, max(0, ranks - len(shares)))) for shares in ordered]
    return np.mean(padded, axis=0).tolist()


def _by_chance(
    arms: Mapping[str, int], rounds: Mapping[str, int], chosen: Mapping[str, Counter[int]]
) -> list[np.ndarray]:
    """Shares as they come out where as many chunks are drawn in as many rounds; the most drawn ones stand out, too."""
    draw, simulated = np.random.default_rng(0), []
    for id in sorted(chosen)[:_SIMULATED]:
        picked = max(1, round(chosen[id].total() / rounds[id]))
        for _ in range(_REPEATED):
            order = draw.random((rounds[id], arms[id])).argsort(axis=1)[:, :picked]
            counts = np.bincount(order.ravel(), minlength=arms[id])
            simulated.append(np.sort(counts)[::-1] / counts.sum())
    return simulated


def _spread(arm: int, arms: int) -> np.ndarray:
    """The shares of one of so many arms that stand in each part of the document."""
    edges = np.linspace(0.0, 1.0, _PARTS + 1)
    return np.diff(np.clip(edges * arms - arm, 0.0, 1.0))


def _learning(by_round: dict[int, list[float]]) -> Section:
    section = Section("Does the bandit learn?")
    rounds = [by_round[round] for round in sorted(by_round)]
    means = [fmean(its) for its in rounds]
    errors = [_SURE * float(np.std(its, ddof=1)) / len(its) ** 0.5 if len(its) > 1 else 0.0 for its in rounds]
    caption = (
        "Rising: later rounds pick better chunks than earlier ones. The band is where the mean lies with a confidence "
        "of 95%; a line that stays within it shows nothing."
    )
    section.plots.append(Plot(line(means, errors, "round", "mean reward"), caption))
    third = max(len(rounds) // 3, 1)
    for name, part in (("first", rounds[:third]), ("last", rounds[-third:])):
        section.facts[f"mean reward in the {name} third"] = f"{fmean(reward for its in part for reward in its):.3f}"
    return section


def _arms(arms: dict[str, int], rounds: dict[str, int], chosen: dict[str, Counter[int]]) -> Section:
    section = Section("Which chunks were chosen")
    touched = [len(chosen[id]) / arms[id] for id in chosen if arms[id]]
    section.facts["chunks (arms) of a question"] = f"{fmean(arms.values()):.1f} on the average"
    section.facts["of them chosen at least once"] = f"{fmean(touched):.0%}"
    ranks = min(max(arms.values()), 2 * _PARTS)
    ordered = [np.sort(np.array(list(its.values())))[::-1] / its.total() for its in chosen.values()]
    shares = _mean_shares(ordered, ranks)
    section.plots.append(
        Plot(
            bars(
                shares,
                [str(rank) if rank % 5 == 0 or rank == 1 else "" for rank in range(1, ranks + 1)],
                "a question's chunks, the most chosen first",
                "share of its choices",
                _mean_shares(_by_chance(arms, rounds, chosen), ranks),
                "if they were drawn by chance",
            ),
            "Left bars above their lines: it comes back to few chunks more than chance does. Below: it spreads.",
        )
    )
    places = np.zeros(_PARTS)
    for id, its in chosen.items():
        for arm, times in its.items():
            places += times * _spread(arm, arms[id])
    section.plots.append(
        Plot(
            bars(
                (places / places.sum()).tolist(),
                [f"{100 * part // _PARTS}" for part in range(_PARTS)],
                "place in the document, percent",
                "share of all choices",
                [1 / _PARTS] * _PARTS,
                "if places did not matter",
            ),
            "Where in their documents the chosen chunks stand.",
        )
    )
    return section
