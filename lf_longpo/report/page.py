"""`longpo report`: one self-contained page about a generation, while it goes on or after it.

All text goes through the template's escaping; only the plots, which no model's text gets into, are taken as markup.
"""

import re
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import yaml

from lf_longpo import __version__
from lf_longpo.config import GenerateConfig, LongRewardGenerateConfig
from lf_longpo.files.journal import write_whole
from lf_longpo.report.advice import truncation_advice
from lf_longpo.report.longmab_section import longmab_sections, longmab_sides
from lf_longpo.report.longreward_section import longreward_sections, longreward_sides
from lf_longpo.report.pair_section import Notes, extremes, known_pairs, pair_section
from lf_longpo.report.section import Section
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.text.differences import visible

if TYPE_CHECKING:
    from jinja2 import Environment

REPORT = "report.html"


class _Method(NamedTuple):
    name: str
    idea: str
    sections: Callable[[RunFolder], list[Section]]
    notes: Notes


_TEMPLATES = Path(__file__).parent / "templates"
STYLE = _TEMPLATES / "report.css"
"""Of pages about runs and pairs."""
_METHODS = {
    "longmab": _Method(
        "LongMab-PO",
        "The chunks of each long context are the arms of a bandit. The policy answers from a few chunks at a time, and "
        "is rewarded for agreeing with the gold answer; a question's best and worst answers are its pair.",
        longmab_sections,
        longmab_sides,
    ),
    "longreward": _Method(
        "LongReward",
        "A judge scores several responses to each question from 0 to 10 on four dimensions; the reward is their mean. "
        "A question's best and worst responses are its pair.",
        longreward_sections,
        longreward_sides,
    ),
}
# What a summary counts, as people call it.
_WITHOUT_PAIR = {
    "left_out": "questions left out by their probe",
    "all_equal": "questions with all rewards equal",
    "cut_off": "questions with too few responses that have text and are not cut off",
    "too_few_responses": "questions with too few responses",
    "not_scored": "responses without a score",
    "unfit": "questions without a pair that fits pairs.cutoff_len",
}
# Failures shown of each cause, and characters of one.
_EXAMPLES, _WORDS = 3, 600


def write_report(run_dir: Path) -> Path:
    """Writes report.html into a run's folder, and gives its path.

    Raises:
        UserError: the folder holds no generation.
    """
    with closing(RunFolder(run_dir)) as run:
        page = _page_of(run)
    write_whole(run_dir / REPORT, [page])
    return run_dir / REPORT


def _page_of(run: RunFolder) -> str:
    method = _METHODS[run.config.method]
    pairs = known_pairs(run)
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
    """A folder's templates; whatever is put into them is escaped."""
    from jinja2 import Environment, FileSystemLoader

    return Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _settings(config: GenerateConfig) -> str:
    """As they were resolved, without what an address may hold beside the server's name."""

    def plain(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: plain(one, key) for key, one in value.items()}
        if isinstance(value, list):
            return [plain(one, name) for one in value]
        if name == "base_url" and isinstance(value, str):
            parts = urlsplit(value)
            return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
        return value

    return yaml.safe_dump(plain(config.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def _state(summary: dict[str, Any] | None) -> str:
    if summary is None:
        return "This run is still going on, or was stopped on its way: what is here is what it has so far."
    if summary["interrupted"] or summary["unfinished"]:
        return f"This run was stopped with {summary['unfinished']:,} questions unfinished; it can be carried on."
    return f"This run has ended, after the stage {summary['stage']}."


def _facts(config: GenerateConfig, summary: dict[str, Any] | None, pairs: int) -> dict[str, str]:
    facts = {"pairs": f"{pairs:,}"}
    if summary:
        facts |= {name: f"{summary[name]:,}" for name in ("questions", "failed")}
        facts |= {told: f"{summary[name]:,}" for name, told in _WITHOUT_PAIR.items() if summary.get(name)}
        if summary["cost"]:
            facts["cost"] = f"{summary['cost']:,.2f}"
        facts["last start took"] = f"{summary['seconds']:,.0f} s"
    if config.policy:
        facts["policy"] = config.policy.model
    if isinstance(config, LongRewardGenerateConfig):
        facts["judge"] = config.judge.model
    return facts | {"input": config.input}


def _calls(run: RunFolder) -> Section:
    section = Section("Calls, tokens, cost and time by stage")
    stages = run.stages()
    timed, priced, cached, cut = (
        any(getattr(stage, name) for stage in stages) for name in ("timed", "cost", "cached_tokens", "truncated")
    )
    section.columns = ["stage", "calls", "prompt tokens", "new tokens"]
    section.columns += ["of the prompt cached"] * cached + ["replies cut off"] * cut + ["cost"] * priced
    section.columns += ["seconds a call", "seconds of all calls"] * timed
    for stage in stages:
        row = [stage.name, *(f"{n:,}" for n in (stage.calls, stage.prompt_tokens, stage.completion_tokens))]
        row += [f"{stage.cached_tokens / max(stage.prompt_tokens, 1):.0%}"] * cached
        row += [f"{stage.truncated:,}"] * cut
        row += [f"{stage.cost:,.4f}"] * priced
        section.rows.append(row + [f"{stage.seconds / max(stage.timed, 1):.2f}", f"{stage.seconds:,.0f}"] * timed)
    section.warnings += truncation_advice(run.config, {stage.name: (stage.calls, stage.truncated) for stage in stages})
    if timed:
        section.notes.append("Many calls ran at the same time, so that their seconds come to more than the run took.")
    if not stages:
        section.notes.append("No call was made yet.")
    return section


def _failures(run: RunFolder) -> Section:
    section = Section("Failures by cause")
    causes, examples = Counter[str](), dict[str, list[str]]()
    for row in run.failures():
        cause = re.sub(r"\d+", "N", visible(str(row["reason"]), _WORDS))
        causes[cause] += 1
        said = f"; last words: {row['last_words']}" if row.get("last_words") else ""
        if len(examples.setdefault(cause, [])) < _EXAMPLES:
            examples[cause].append(visible(f"{row.get('id')}: {row['reason']}{said}", _WORDS))
    section.columns = ["cause", "times", "such as"] if causes else []
    section.rows = [[cause, f"{times:,}", "\n".join(examples[cause])] for cause, times in causes.most_common()]
    if not causes:
        section.notes.append("Nothing failed in the last start.")
    return section
