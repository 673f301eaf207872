"""`longpo report`: one self-contained page about a run of `longpo generate`, during the run or after it.

The template escapes all text. Only the plots are inserted as markup; they contain no text of a model or a data set.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import yaml

from lf_longpo import __version__
from lf_longpo.config import GenerateConfig, LongRewardGenerateConfig
from lf_longpo.engine.failures import cause_of
from lf_longpo.files.journal import write_whole
from lf_longpo.files.starts import Start, read_starts
from lf_longpo.report import conclusions
from lf_longpo.report.advice import thought_advice, truncation_advice
from lf_longpo.report.longmab_section import LongMabFigures
from lf_longpo.report.longreward_section import LongRewardFigures
from lf_longpo.report.next_step import next_step
from lf_longpo.report.pair_section import PairSize, extremes, length_counts, pair_section, pair_sizes
from lf_longpo.report.question_section import question_sections
from lf_longpo.report.section import MethodFigures, Rewards, Section
from lf_longpo.report.training_section import score_section, training_sections
from lf_longpo.run_folder.contents import RunFolder, StageCalls, read_stages
from lf_longpo.run_folder.question_records import QuestionRecords
from lf_longpo.text.differences import visible

if TYPE_CHECKING:
    from jinja2 import Environment

REPORT = "report.html"
"""The report's name in a run's folder."""


class _Method(NamedTuple):
    name: str
    idea: str
    figures: Callable[[RunFolder], MethodFigures]


TEMPLATES = Path(__file__).parent / "templates"
"""The folder of the templates and the style sheet."""
STYLE = TEMPLATES / "report.css"
"""The style sheet of the report and the viewer."""
_METHODS = {
    "longmab": _Method(
        "LongMab-PO",
        "The chunks of each long context are the arms of a bandit. In each round, the policy answers from a few "
        "chunks; the reward compares its answer with the gold answer. The best and the worst answer of a question are "
        "its first pair.",
        LongMabFigures,
    ),
    "longreward": _Method(
        "LongReward",
        "A judge scores several responses to each question on four dimensions, each from 0 to 10; the reward is the "
        "mean of the four scores. The best and the worst response of a question are its first pair.",
        lambda run: LongRewardFigures(),
    ),
}
# The names of a summary's counts of questions without a pair, and of what was not used.
_WITHOUT_PAIR = {
    "left_out": "questions with a failed probe",
    "all_equal": "questions without a reward difference",
    "cut_off": "questions with too few complete responses",
    "too_few_responses": "questions with too few responses",
    "not_scored": "responses without a score",
    "given_up": "responses that cannot be best or worst",
    "unfinished_thoughts": "replies with a thought and no answer",
    "unfit": "questions with pairs longer than pairs.cutoff_len",
    "reviewed_gone": "reviewed pairs that are no longer in the data set",
}
# The number of examples of each cause of failure, and their characters.
_EXAMPLES, _EXAMPLE = 3, 600


def write_report(run_dir: Path, training: Path | None = None, scores: tuple[Path, Path] | None = None) -> Path:
    """Writes report.html into a run's folder and returns its path.

    Args:
        run_dir: the run's folder.
        training: `output_dir` of a training on its pairs. Default: that of a recipe in yaml/ for the data set.
        scores: folders of the evaluations before and after the training.

    Raises:
        UserError: a folder does not hold a run of `longpo generate`, a training or an evaluation.
    """
    with closing(RunFolder(run_dir)) as run:
        results = training_sections(run.config, training) + ([score_section(*scores)] if scores else [])
        page = _page_of(run, results)
    write_whole(run_dir / REPORT, [page])
    return run_dir / REPORT


def _page_of(run: RunFolder, results: list[Section]) -> str:
    method = _METHODS[run.config.method]
    pairs = pair_sizes(run)
    figures = method.figures(run)
    records = QuestionRecords(run, figures.add)
    records.read_on()
    largest, smallest = extremes(run, pairs, records)
    summary = run.summary()
    found = figures.sections()
    causes = _causes(run)
    rewards = next((section.rewards for section in found if section.rewards), Rewards())
    questions = question_sections(records)
    stages = read_stages(run.path)
    sections = [*found, pair_section(run, pairs), *questions, *results, _calls(run, stages), _failures(causes)]
    return (
        templates(TEMPLATES)
        .get_template("report.html")
        .render(
            title=f"{method.name}: {run.config.dataset_name}",
            version=__version__,
            idea=method.idea,
            sentences=_sentences(
                run.config, summary, pairs, rewards, {name: len(rows) for name, rows in causes.items()}
            ),
            facts=_facts(run, summary, len(pairs), sum(stage.cost for stage in stages)),
            warnings=[warning for section in sections for warning in section.warnings],
            sections=sections,
            extremes=(("largest", largest), ("smallest", smallest)),
            config=visible(_settings(run.config), 100_000),
            style=STYLE.read_text(encoding="utf-8"),
        )
    )


def templates(folder: Path) -> "Environment":
    """The templates in a folder, and those of the report for what they share. All values are escaped."""
    from jinja2 import Environment, FileSystemLoader

    return Environment(
        loader=FileSystemLoader([folder, TEMPLATES]), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )


def _settings(config: GenerateConfig) -> str:
    """The resolved configuration. Addresses have only the server and the path: the rest may hold secrets."""

    def plain(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: plain(field, key) for key, field in value.items()}
        if isinstance(value, list):
            return [plain(item, name) for item in value]
        if name == "base_url" and isinstance(value, str):
            parts = urlsplit(value)
            return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
        return value

    return yaml.safe_dump(plain(config.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def _sentences(
    config: GenerateConfig,
    summary: dict[str, Any] | None,
    pairs: Sequence[PairSize],
    rewards: Rewards,
    causes: Mapping[str, int],
) -> list[str]:
    """What happened and what to do: see `conclusions`. The last sentence has the next command."""
    counts = summary or {}
    state: conclusions.State = "running"
    if summary:
        state = "interrupted" if summary["interrupted"] or summary["unfinished"] else "finished"
    questions, failed = counts.get("questions", 0), counts.get("failed", sum(causes.values()))
    stage = counts.get("stage", "")
    with_pair = len({pair.question for pair in pairs})
    raised = {
        "longmab": "longmab.rounds or longmab.sampling.temperature",
        "longreward": "longreward.num_samples or longreward.sampling.temperature",
    }
    found = [
        conclusions.failures(failed, questions, causes),
        conclusions.failed_probes(counts.get("left_out", 0), questions),
        conclusions.no_difference(
            counts.get("all_equal", 0),
            questions,
            rewards.lowest,
            rewards.best,
            raised[config.method],
            config.pairs.min_gap,
        ),
        conclusions.length_bias(*length_counts(pairs)),
        conclusions.reward_trend(rewards.differences, rewards.first, rewards.last),
    ]
    return [
        conclusions.outcome(state, stage, questions, with_pair, len(pairs), counts.get("unfinished", 0)),
        *[sentence for sentence in found if sentence][: conclusions.MOST_SENTENCES - 2],
        next_step(config, state, stage, counts.get("data_set", "written" if pairs else "none"), failed),
    ]


def _facts(run: RunFolder, summary: dict[str, Any] | None, pairs: int, cost: float) -> dict[str, str]:
    config = run.config
    facts = {"pairs": f"{pairs:,}"}
    if summary:
        facts |= {"questions": f"{summary['questions']:,}", "failed questions": f"{summary['failed']:,}"}
        facts |= {text: f"{summary[name]:,}" for name, text in _WITHOUT_PAIR.items() if summary.get(name)}
    if cost:
        facts["cost of all starts"] = f"{cost:,.2f}"
    starts = read_starts(run.path)
    if starts and not (run.path / "shards").is_dir():  # with --ray, the folder's own start only collects the shards
        facts |= _times(starts)
    elif summary:
        facts["duration of the last start"] = f"{summary['seconds']:,.0f} s"
    if config.policy:
        facts["policy"] = config.policy.model
    if isinstance(config, LongRewardGenerateConfig):
        facts["judge"] = config.judge.model
    return facts | {"input": config.input}


def _times(starts: Sequence[Start]) -> dict[str, str]:
    """Dates, durations and versions of all starts."""
    ended = [start for start in starts if start.seconds is not None]
    killed = len(starts) - len(ended)
    unknown = f" (without {killed} that did not end by themselves)" if killed else ""
    return {
        "first start": f"{starts[0].began} UTC",
        "last start": f"{starts[-1].began} UTC",
        "starts": f"{len(starts)}",
        "time of all starts": f"{sum(start.seconds or 0 for start in ended):,.0f} s{unknown}",
        "version": ", ".join(dict.fromkeys(start.version for start in starts)),
    }


def _calls(run: RunFolder, stages: Sequence[StageCalls]) -> Section:
    section = Section("Calls, tokens, cost and time by stage")
    timed, priced, cached, cut = (
        any(getattr(stage, name) for stage in stages) for name in ("timed", "cost", "cached_tokens", "truncated")
    )
    section.columns = ["stage", "calls", "prompt tokens", "new tokens"]
    section.columns += ["cached prompt tokens"] * cached + ["truncated replies"] * cut + ["cost"] * priced
    section.columns += ["seconds per call", "seconds of all calls"] * timed
    for stage in stages:
        row = [stage.name, *(f"{n:,}" for n in (stage.calls, stage.prompt_tokens, stage.completion_tokens))]
        row += [f"{stage.cached_tokens / max(stage.prompt_tokens, 1):.0%}"] * cached
        row += [f"{stage.truncated:,}"] * cut
        row += [f"{stage.cost:,.4f}"] * priced
        section.rows.append(row + [f"{stage.seconds / max(stage.timed, 1):.2f}", f"{stage.seconds:,.0f}"] * timed)
    section.warnings += truncation_advice(run.config, {stage.name: (stage.calls, stage.truncated) for stage in stages})
    section.warnings += thought_advice((run.summary() or {}).get("unfinished_thoughts", 0))
    if timed:
        section.notes.append(
            "Seconds count from the sending of a call, without its wait for a free place, to its reply. Calls that a "
            "model of this machine or a batch answers together include the wait for each other. Many calls run at the "
            "same time, so their seconds add up to more than the duration of the run."
        )
    if not stages:
        section.notes.append("No calls yet.")
    return section


def _causes(run: RunFolder) -> dict[str, list[str]]:
    """The failures by cause. Numbers in causes are replaced, so that equal causes are counted together."""
    causes: dict[str, list[str]] = {}
    shown: dict[str, str] = {}
    for row in run.failures():
        reason = visible(str(row["reason"]), _EXAMPLE)
        cause = shown.setdefault(cause_of(reason), reason)
        end = f"; end of the reply: {row['last_words']}" if row.get("last_words") else ""
        causes.setdefault(cause, []).append(visible(f"{row.get('id')}: {row['reason']}{end}", _EXAMPLE))
    return causes


def _failures(causes: Mapping[str, Sequence[str]]) -> Section:
    section = Section("Failures by cause")
    section.columns = ["cause", "failures", "examples"] if causes else []
    ordered = sorted(causes.items(), key=lambda item: -len(item[1]))
    section.rows = [[cause, f"{len(rows):,}", "\n".join(rows[:_EXAMPLES])] for cause, rows in ordered]
    if not causes:
        section.notes.append("There were no failures in the last start.")
    return section
