"""`longpo report`: one self-contained page about a run of `longpo generate`, during the run or after it.

The template escapes all text. Only the plots are inserted as markup; they contain no text of a model or a data set.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import yaml

from lf_longpo import __version__
from lf_longpo.config import GenerateConfig, LongRewardGenerateConfig
from lf_longpo.engine.failures import cause_of
from lf_longpo.files.journal import write_whole
from lf_longpo.report.advice import thought_advice, truncation_advice
from lf_longpo.report.longmab_section import longmab_sections, rollout_notes
from lf_longpo.report.longreward_section import longreward_sections, score_notes
from lf_longpo.report.pair_section import ResponseNotes, extremes, pair_section, pair_sizes
from lf_longpo.report.section import Section
from lf_longpo.run_folder.contents import RunFolder, read_stages
from lf_longpo.text.differences import visible

if TYPE_CHECKING:
    from jinja2 import Environment

REPORT = "report.html"
"""The report's name in a run's folder."""


class _Method(NamedTuple):
    name: str
    idea: str
    sections: Callable[[RunFolder], list[Section]]
    notes: ResponseNotes


_TEMPLATES = Path(__file__).parent / "templates"
STYLE = _TEMPLATES / "report.css"
"""The style sheet of the report and the viewer."""
_METHODS = {
    "longmab": _Method(
        "LongMab-PO",
        "The chunks of each long context are the arms of a bandit. In each round, the policy answers from a few "
        "chunks; the reward compares its answer with the gold answer. The best and the worst answer of a question are "
        "its pair.",
        longmab_sections,
        rollout_notes,
    ),
    "longreward": _Method(
        "LongReward",
        "A judge scores several responses to each question on four dimensions, each from 0 to 10; the reward is the "
        "mean of the four scores. The best and the worst response of a question are its pair.",
        longreward_sections,
        score_notes,
    ),
}
# The names of a summary's counts of questions without a pair, and of what was not used.
_WITHOUT_PAIR = {
    "left_out": "questions with a failed probe",
    "all_equal": "questions without a reward difference",
    "cut_off": "questions with too few complete responses",
    "too_few_responses": "questions with too few responses",
    "not_scored": "responses without a score",
    "unfinished_thoughts": "replies with a thought and no answer",
    "unfit": "questions with pairs longer than pairs.cutoff_len",
}
# The number of examples of each cause of failure, and their characters.
_EXAMPLES, _EXAMPLE = 3, 600


def write_report(run_dir: Path) -> Path:
    """Writes report.html into a run's folder and returns its path.

    Raises:
        UserError: the folder does not hold a run of `longpo generate`.
    """
    with closing(RunFolder(run_dir)) as run:
        page = _page_of(run)
    write_whole(run_dir / REPORT, [page])
    return run_dir / REPORT


def _page_of(run: RunFolder) -> str:
    method = _METHODS[run.config.method]
    pairs = pair_sizes(run)
    largest, smallest = extremes(run, pairs, method.notes)
    summary = run.summary()
    sections = [*method.sections(run), pair_section(run, pairs), _calls(run), _failures(run)]
    return (
        templates(_TEMPLATES)
        .get_template("report.html")
        .render(
            title=f"{method.name}: {run.config.dataset_name}",
            version=__version__,
            idea=method.idea,
            state=_state(summary),
            facts=_facts(run.config, summary, len(pairs)),
            warnings=[warning for section in sections for warning in section.warnings],
            sections=sections,
            extremes=(("largest", largest), ("smallest", smallest)),
            config=visible(_settings(run.config), 100_000),
            style=STYLE.read_text(encoding="utf-8"),
        )
    )


def templates(folder: Path) -> "Environment":
    """The templates in a folder. All values are escaped."""
    from jinja2 import Environment, FileSystemLoader

    return Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True)


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


def _state(summary: dict[str, Any] | None) -> str:
    if summary is None:
        return "This run is not finished: it is still running, or it was stopped. The page shows its results so far."
    if summary["interrupted"] or summary["unfinished"]:
        return (
            f"This run was stopped with {summary['unfinished']:,} unfinished questions. Start the same command again "
            "to resume it."
        )
    return f"This run is finished, up to the stage {summary['stage']}."


def _facts(config: GenerateConfig, summary: dict[str, Any] | None, pairs: int) -> dict[str, str]:
    facts = {"pairs": f"{pairs:,}"}
    if summary:
        facts |= {"questions": f"{summary['questions']:,}", "failed questions": f"{summary['failed']:,}"}
        facts |= {text: f"{summary[name]:,}" for name, text in _WITHOUT_PAIR.items() if summary.get(name)}
        if summary["cost"]:
            facts["cost"] = f"{summary['cost']:,.2f}"
        facts["duration of the last start"] = f"{summary['seconds']:,.0f} s"
    if config.policy:
        facts["policy"] = config.policy.model
    if isinstance(config, LongRewardGenerateConfig):
        facts["judge"] = config.judge.model
    return facts | {"input": config.input}


def _calls(run: RunFolder) -> Section:
    section = Section("Calls, tokens, cost and time by stage")
    stages = read_stages(run.path)
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
            "Many calls run at the same time, so their seconds add up to more than the duration of the run."
        )
    if not stages:
        section.notes.append("No calls yet.")
    return section


def _failures(run: RunFolder) -> Section:
    section = Section("Failures by cause")
    causes, examples = Counter[str](), dict[str, list[str]]()
    for row in run.failures():
        cause = cause_of(visible(str(row["reason"]), _EXAMPLE))
        causes[cause] += 1
        end = f"; end of the reply: {row['last_words']}" if row.get("last_words") else ""
        if len(examples.setdefault(cause, [])) < _EXAMPLES:
            examples[cause].append(visible(f"{row.get('id')}: {row['reason']}{end}", _EXAMPLE))
    section.columns = ["cause", "failures", "examples"] if causes else []
    section.rows = [[cause, f"{times:,}", "\n".join(examples[cause])] for cause, times in causes.most_common()]
    if not causes:
        section.notes.append("There were no failures in the last start.")
    return section
