"""`longpo generate`: puts models, method, pipeline and registry together for one run.

Faults of the input, the settings and the models are found before the run's folder is touched.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.config import GenerateConfig, LongRewardGenerateConfig
from lf_longpo.data.pairs import PAIRS, Pairs, check_question_ids
from lf_longpo.data.questions import read_questions
from lf_longpo.engine.ending import ending
from lf_longpo.engine.outcomes import Outcome, Outcomes
from lf_longpo.engine.pipeline import Tally
from lf_longpo.engine.progress import Progress
from lf_longpo.engine.protocol import Plan, Run, Sinks
from lf_longpo.engine.session import Session
from lf_longpo.errors import UserError, first_line
from lf_longpo.files.journal import Row, write_whole
from lf_longpo.longmab.plan import LongMabPlan
from lf_longpo.longreward.plan import LongRewardPlan
from lf_longpo.models.tokenizers import load_counting_tokenizer
from lf_longpo.models.usage import Expected, expected
from lf_longpo.plugin.encoding import TemplateEncoder, check_template
from lf_longpo.report.page import REPORT, write_report
from lf_longpo.run_folder.data_set import check_data_set, keep_decisions, register_pairs, reviewed_pairs
from lf_longpo.run_folder.shards import SHARDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLANS: dict[str, type[Plan[Any]]] = {"longmab": LongMabPlan, "longreward": LongRewardPlan}


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended."""

    summary: dict[str, Any]
    exit_code: int


async def generate(config: GenerateConfig, until: str = "pairs", patience: float = 0.0) -> Result:
    """Starts or resumes one generation, and registers its pairs.

    Args:
        config: the run's.
        until: the stage after which to stop; a later call with a later stage resumes.
        patience: seconds to wait for another run in the same folder to end.

    Raises:
        UserError: input, settings or models cannot work. Nothing was written, unless a model failed later.
    """
    if (config.output_dir / SHARDS).is_dir():
        raise UserError(
            f"{config.output_dir} holds a run that began with --ray; resume it with --ray, or set another output_dir"
        )
    async with Session(config, patience) as session:
        plan, redo_pairs = _checked_plan(config, until, session)
        needed = plan.needed()
        await session.check_models(*needed)
        job = _load(config, until, plan, redo_pairs)
        models = plan.models(session, job.tokenizer)
        await session.start(*needed)
        session.open()
        if job.redo_pairs:
            (config.output_dir / PAIRS).unlink(missing_ok=True)
        progress = job.progress(session)
        with closing(job.pairs()) as pairs:
            sinks = Sinks(pairs, session.failures, progress, Outcomes(progress))
            with job.plan.open(models, sinks) as run:
                _announce(config, len(job.plan.digests), run, sinks)
                questions = read_questions(job.plan.source)
                number, in_flight = len(job.plan.digests), job.plan.in_flight
                tally = await session.run(questions, number, run.work, in_flight, progress, run.finished)
                with ending():
                    return job.finish(session, run, pairs, tally)


async def check(config: GenerateConfig, until: str = "pairs") -> int:
    """Finds all faults that `generate` finds without a call; returns the number of questions.

    Raises:
        UserError: likewise.
    """
    async with Session(config) as session:
        job = _load(config, until, *_checked_plan(config, until, session))
        job.plan.models(session, job.tokenizer)
        return len(job.plan.digests)


async def collect(
    config: GenerateConfig, until: str, parts: Sequence[Mapping[str, Any]], lost: Sequence[Row], seconds: float
) -> Result:
    """Ends a run whose journals, pairs included, were made by other runs and lie in `output_dir`; makes no calls.

    Args:
        config: the run's.
        until: the stage after which it stopped.
        parts: the summaries of the runs that made the journals.
        lost: their failures.
        seconds: the time that they took.

    Raises:
        UserError: input or settings cannot work.
    """

    def total(key: str) -> int:
        return sum(part.get(key, 0) for part in parts)

    async with Session(config) as session:
        job = _load(config, until, *_checked_plan(config, until, session))
        models = job.plan.models(session, job.tokenizer)
        session.open()
        session.failures.add(lost)
        progress = job.progress(session)
        with closing(job.pairs()) as pairs:
            pairs.unfit = total("unfit")
            outcomes = Outcomes(progress, {outcome: total(outcome) for outcome in Outcome})
            with job.plan.open(models, Sinks(pairs, session.failures, progress, outcomes)) as run:
                failed, unfinished = total("failed"), total("unfinished")
                done = total("questions") - failed - unfinished
                tally = Tally(done, failed, unfinished, any(part["interrupted"] for part in parts))
                return job.finish(session, run, pairs, tally, seconds=round(seconds, 1))


def estimate(config: GenerateConfig) -> list[Expected]:
    """What a new run is expected to take, stage by stage, from its real input; makes no calls.

    Raises:
        UserError: input or settings cannot work.
    """
    plan = _plan_kind(config, "pairs")(config, "pairs")
    tokenizer = load_counting_tokenizer(config.tokenizer, config.policy, "policy")
    prices = {"embed": config.embedder.price, "sample": config.policy.price if config.policy else None}
    others = config.judge if isinstance(config, LongRewardGenerateConfig) else config.policy
    return [
        expected(stage, usage, prices.get(stage, others.price if others else None))
        for stage, usage in plan.estimate(tokenizer).items()
        if usage.calls
    ]


@dataclass(frozen=True, slots=True)
class _Job:
    """A run with input and settings that can work."""

    config: GenerateConfig
    until: str
    plan: Plan[Any]
    redo_pairs: bool
    """Whether only settings of how pairs are made have changed: pairs are made again."""
    tokenizer: "PreTrainedTokenizerBase"
    encoder: TemplateEncoder

    def pairs(self) -> Pairs:
        """The pairs of the run, with its journal opened."""
        config = self.config
        return Pairs(config.output_dir, self.encoder, config.pairs.per_question > 1, config.system)

    def progress(self, session: Session) -> Progress:
        """The progress of the run."""
        return Progress(self.config.method, len(self.plan.digests), self.plan.steps, session.ledger)

    def finish(self, session: Session, run: Run, pairs: Pairs, tally: Tally, **changes: Any) -> Result:
        """Registers the pairs, and writes summary and report.

        Args:
            session: of the run.
            run: its method.
            pairs: its pairs.
            tally: how its questions ended.
            changes: values of the summary to replace.

        Raises:
            UserError: the fault that ended the run early.
            OSError: likewise.
        """
        config, ids = self.config, list(self.plan.digests)
        complete = self.until == self.plan.stages[-1]
        registration = "none"
        reviewed = reviewed_pairs(config) if complete else {}
        if complete:
            registration = register_pairs(config, ids, pairs, tally)
            write_whole(config.output_dir / PAIRS, pairs.lines(ids))  # in the input's order, as in the data folder
        made = pairs.number(ids)
        summary = {
            "method": config.method,
            "questions": len(ids),
            "stage": self.until,
            **tally.counts(),
            "pairs": made,
            "questions_with_pairs": len(pairs.ids(ids)),
            "reviewed_gone": keep_decisions(config, reviewed) if complete else 0,
            "unfit": pairs.unfit,
            "data_set": registration,
            **run.summary(),
            **session.totals(),
            **changes,
        }
        session.write_summary(summary)
        _report(config.output_dir)
        return Result(summary, tally.exit_code(made if complete else tally.done, config.max_failure_rate))


def _checked_plan(config: GenerateConfig, until: str, session: Session) -> tuple[Plan[Any], bool]:
    """The plan, and whether pairs are made again. Everything that needs no heavy import is checked here."""
    kind = _plan_kind(config, until)
    redo_pairs = session.check_settings(kind.redone)
    plan = kind(config, until)
    if config.pairs.per_question > 1:
        check_question_ids(plan.digests)
    check_data_set(config)
    check_template(config.pairs.template, "pairs.template")
    return plan, redo_pairs


def _load(config: GenerateConfig, until: str, plan: Plan[Any], redo_pairs: bool) -> _Job:
    """Loads the tokenizer and LLaMA-Factory, which takes seconds."""
    tokenizer = load_counting_tokenizer(config.tokenizer, config.policy, "policy")
    name = config.tokenizer or (config.policy.model if config.policy else "")
    trust = bool(config.policy and config.policy.trust_remote_code)
    encoder = TemplateEncoder(
        config.pairs.template,
        name,
        config.pairs.cutoff_len,
        trust,
        config.system,
        thinking=config.policy.thinking if config.policy else "auto",
    )
    return _Job(config, until, plan, redo_pairs, tokenizer, encoder)


def _plan_kind(config: GenerateConfig, until: str) -> type[Plan[Any]]:
    kind = _PLANS[config.method]
    if until not in kind.stages:
        raise UserError(f"method: {config.method} has no stage {until!r}; set one of {', '.join(kind.stages)}")
    return kind


def _announce(config: GenerateConfig, questions: int, run: Run, sinks: Sinks) -> None:
    if sinks.pairs.skipped:
        sinks.progress.note(f"{sinks.pairs.skipped} lines of {PAIRS} cannot be read; their pairs are made again")
    for line in (
        f"{questions} questions from {config.input}",
        *run.announcement,
        f"  pairs    -> {config.output_dir / PAIRS}",
        f"  register -> {config.dataset_dir / 'dataset_info.json'} as {config.dataset_name}",
    ):
        sinks.progress.note(line)


def _report(output_dir: Path) -> None:
    """Writes the page about the run. A fault of the page does not fail the run."""
    try:
        write_report(output_dir)
    except Exception as error:
        print(
            f"{REPORT} was not written: {first_line(error)}; run longpo report {output_dir} to try again",
            file=sys.stderr,
            flush=True,
        )
