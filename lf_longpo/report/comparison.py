"""`longpo report A B`: one page that compares two runs: pairs, rewards, cost, lengths, and the same questions."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from lf_longpo import __version__
from lf_longpo.data.records import Rollout, names
from lf_longpo.files.journal import write_whole
from lf_longpo.longmab.rollout_files import ROLLOUTS
from lf_longpo.longreward.response_files import SCORES, Keys
from lf_longpo.report.conclusions import beyond_chance, directions
from lf_longpo.report.page import STYLE, TEMPLATES, templates
from lf_longpo.report.pair_section import PairSize, length_counts, pair_sizes
from lf_longpo.run_folder.contents import RunFolder, StageCalls, read_stages
from lf_longpo.text.differences import visible

COMPARISON = "comparison.html"
"""The page's name in the folder of the second run."""
# The number of questions that are shown, those with the largest differences first; characters of a response.
_SHOWN, _RESPONSE = 50, 3_000


class _Side(NamedTuple):
    """What is compared of a run."""

    run: RunFolder
    pairs: dict[str, PairSize]
    """By id. The first pair of a question has the question's id."""
    rewards: dict[str, list[float]]
    """By question, the rewards of its responses."""
    stages: list[StageCalls]
    """What its calls took."""

    @property
    def means(self) -> dict[str, float]:
        return {id: fmean(rewards) for id, rewards in self.rewards.items()}


class _SameQuestion(NamedTuple):
    """A question of both runs; each tuple has the value of the first and of the second run."""

    id: str
    question: str
    rewards: tuple[float, float]
    chosen: tuple[str, str]


def write_comparison(first: Path, second: Path) -> Path:
    """Writes comparison.html into the folder of the second run and returns its path.

    Raises:
        UserError: a folder does not hold a run of `longpo generate`.
    """
    with closing(RunFolder(first)) as a, closing(RunFolder(second)) as b:
        sides = tuple(
            _Side(run, {pair.id: pair for pair in pair_sizes(run)}, _rewards(run), read_stages(run.path))
            for run in (a, b)
        )
        means = [side.means for side in sides]
        shared = sorted(means[0].keys() & means[1].keys(), key=lambda id: (-abs(means[1][id] - means[0][id]), id))
        with_pair = [id for id in shared if any(id in side.pairs for side in sides)]
        changes = [means[1][id] - means[0][id] for id in shared]
        page = (
            templates(TEMPLATES)
            .get_template("comparison.html")
            .render(
                title=f"{first} and {second}",
                version=__version__,
                sentence=reward_difference(*directions(changes), fmean(changes or [0])),
                rows=[[name, *(value(side) for side in sides)] for name, value in _COMPARED.items()],
                questions=[_same_question(id, sides, means) for id in with_pair[:_SHOWN]],
                shared=len(shared),
                style=STYLE.read_text(encoding="utf-8"),
            )
        )
    write_whole(second / COMPARISON, [page])
    return second / COMPARISON


def reward_difference(more: int, fewer: int, change: float) -> str:
    """Whether the second run has higher rewards on the same questions, by the sign test of `conclusions`.

    Args:
        more: questions with a higher mean reward in the second run.
        fewer: questions with a lower one.
        change: the mean difference, second minus first.
    """
    if not more + fewer:
        return "There is no question in common with a different mean reward."
    word = "beyond" if beyond_chance(more, fewer) else "within"
    return (
        f"On the same questions, the mean reward of the second run differs by {change:+.3f}, {word} chance: it is "
        f"higher for {more:,} and lower for {fewer:,} questions."
    )


def _rewards(run: RunFolder) -> dict[str, list[float]]:
    found: dict[str, dict[int, float]] = {}
    if run.config.method == "longmab":
        for row in run.rows(ROLLOUTS, tuple(names(Rollout))):
            found.setdefault(row["id"], {})[row["round"]] = row["reward"]
        return {id: list(rewards.values()) for id, rewards in found.items()}
    by_id: dict[str, list[float]] = {}
    key = Keys(()).of_score
    for row in run.rows(SCORES, ("idx", "scores", "reward"), "idx"):
        if (id := key(row)) is not None:
            by_id.setdefault(id, []).append(row["reward"])
    return by_id


def _lengths(side: _Side) -> str:
    longer, _, equal = length_counts(list(side.pairs.values()))
    return f"{longer:,} of {len(side.pairs) - equal:,}"


def _mean(values: list[float]) -> str:
    return f"{fmean(values):.3f}" if values else "-"


_COMPARED: dict[str, Callable[[_Side], str]] = {
    "data set": lambda side: side.run.config.dataset_name,
    "method": lambda side: side.run.config.method,
    "policy": lambda side: side.run.config.policy.model if side.run.config.policy else "-",
    "questions": lambda side: f"{(side.run.summary() or {}).get('questions', len(side.rewards)):,}",
    "pairs": lambda side: f"{len(side.pairs):,}",
    "questions with pairs": lambda side: f"{len({pair.question for pair in side.pairs.values()}):,}",
    "mean reward of all responses": lambda side: _mean([r for rewards in side.rewards.values() for r in rewards]),
    "mean reward gap of the pairs": lambda side: _mean([pair.gap for pair in side.pairs.values()]),
    "chosen is longer, of pairs that differ": _lengths,
    "calls": lambda side: f"{sum(stage.calls for stage in side.stages):,}",
    "new tokens": lambda side: f"{sum(stage.completion_tokens for stage in side.stages):,}",
    "cost": lambda side: f"{sum(stage.cost for stage in side.stages):,.4f}",
}


def _same_question(id: str, sides: tuple[_Side, ...], means: list[dict[str, float]]) -> _SameQuestion:
    rows = [side.run.pair_at(side.pairs[id].offset) if id in side.pairs else {} for side in sides]
    texts = [visible(row.get("chosen", ""), _RESPONSE) for row in rows]
    question = next((str(row["input"]) for row in rows if row), "")
    return _SameQuestion(
        visible(id, 200), visible(question, _RESPONSE), (means[0][id], means[1][id]), (texts[0], texts[1])
    )
