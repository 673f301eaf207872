"""`longpo generate`: puts models, method, pipeline and registry together for one run.

All that can be wrong with the input, the settings or the models is found before the run's folder is touched.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.config import GenerateConfig
from lf_longpo.data.pairs import PAIRS, Pairs
from lf_longpo.data.questions import check_questions, read_questions
from lf_longpo.engine.pipeline import FAILURES, Failures, Tally, run_questions
from lf_longpo.engine.progress import Progress
from lf_longpo.engine.protocol import Method, Tools
from lf_longpo.errors import UserError, first_line
from lf_longpo.files.journal import Row, check_folder, write_whole
from lf_longpo.files.run_dir import SUMMARY, changed_settings, locked, refuse_changes, save_settings
from lf_longpo.longmab.run import LongMabRun
from lf_longpo.longreward.run import LongRewardRun
from lf_longpo.models.cache import CALLS, CallCache
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.tokenizers import load_counting_tokenizer
from lf_longpo.models.usage import Expected, expected
from lf_longpo.plugin.encoding import TemplateEncoder
from lf_longpo.report.page import REPORT, write_report
from lf_longpo.run_folder.data_set import check_data_set, register_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Where a run on a cluster has its parts.
SHARDS = "shards"
# What a summary counts, apart from pairs and calls.
_COUNTED = (
    "questions",
    "failed",
    "unfinished",
    "unfit",
    "left_out",
    "all_equal",
    "cut_off",
    "too_few_responses",
    "not_scored",
    "gold_in_every_text",
)
_METHODS = {"longmab": LongMabRun, "longreward": LongRewardRun}


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to."""

    summary: dict[str, Any]
    exit_code: int


async def generate(config: GenerateConfig, until: str = "pairs", patience: float = 0.0) -> Result:
    """Runs or carries on one generation, and registers its pairs.

    Args:
        config: the run's.
        until: the stage after which to stop; the same call carries on with a later one.
        patience: seconds to wait for another run in the same folder to end.

    Raises:
        UserError: input, settings or models that cannot work; nothing was written unless a model gave out midway.
    """
    began = time.monotonic()
    output_dir = config.output_dir
    if (output_dir / SHARDS).is_dir():
        raise UserError(f"{output_dir} holds a run begun with --ray; carry on with --ray, or set another output_dir")
    run = _prepare(config, until)
    method, digests = run.method, run.digests
    cache, ledger = CallCache(output_dir / CALLS), Ledger(config.max_cost)
    progress = run.equip(config.method, cache, ledger)
    try:
        await method.start()
        with locked(output_dir, patience), Failures(output_dir / FAILURES) as failures:
            cache.open()
            ledger.carry_over(cache.totals())
            (output_dir / SUMMARY).unlink(missing_ok=True)  # tells that the run has ended
            if run.changed:  # only how pairs are made: they are made anew
                (output_dir / PAIRS).unlink(missing_ok=True)
            save_settings(config, output_dir)
            pairs = Pairs(output_dir, run.encoder)
            try:
                announced = method.open(pairs, failures)
                with progress:
                    _announce(config, len(digests), pairs, announced, progress)
                    questions = read_questions(method.source)
                    tally = await run_questions(
                        questions, len(digests), method.work, method.in_flight, failures, progress, ledger
                    )
                seconds = time.monotonic() - began
                return _finish(config, list(digests), until, pairs, method, ledger, tally, seconds)
            finally:
                pairs.close()
    finally:
        await method.close()  # before the cache: what still comes back is kept
        cache.close()


async def check(config: GenerateConfig, until: str = "pairs") -> int:
    """Finds before any work what `generate` would find without asking a model; gives the number of questions.

    Raises:
        UserError: likewise.
    """
    run = _prepare(config, until)
    run.equip(config.method, CallCache(None), Ledger())
    await run.method.close()
    return len(run.digests)


async def collect(
    config: GenerateConfig, until: str, parts: Sequence[Mapping[str, Any]], lost: Sequence[Row], seconds: float
) -> Result:
    """Ends a run whose journals, pairs included, were made elsewhere and lie in `output_dir`; makes no call.

    Args:
        config: the run's.
        until: the stage after which it stopped.
        parts: the summaries of the runs that made them.
        lost: what could not be done.
        seconds: what it took.

    Raises:
        UserError: input or settings cannot work.
    """
    run = _prepare(config, until)
    cache, ledger = CallCache(config.output_dir / CALLS), Ledger()
    progress = run.equip(config.method, cache, ledger)
    try:
        with locked(config.output_dir), Failures(config.output_dir / FAILURES) as failures:
            cache.open()
            ledger.carry_over(cache.totals())
            save_settings(config, config.output_dir)
            failures.carry_over(lost)
            pairs = Pairs(config.output_dir, run.encoder)
            try:
                run.method.open(pairs, failures)
                sums = {name: sum(part.get(name, 0) for part in parts) for name in _COUNTED}
                pairs.unfit = sums["unfit"]
                progress.counts.update({name.replace("_", " "): number for name, number in sums.items()})
                done = sums["questions"] - sums["failed"] - sums["unfinished"]
                tally = Tally(done, sums["failed"], sums["unfinished"], any(part["interrupted"] for part in parts))
                return _finish(config, list(run.digests), until, pairs, run.method, ledger, tally, seconds)
            finally:
                pairs.close()
    finally:
        await run.method.close()
        cache.close()


@dataclass(frozen=True, slots=True)
class _Run:
    """A run whose input and settings can work."""

    method: Method
    digests: dict[str, str]
    changed: dict[str, tuple[Any, Any]]
    steps: int
    tokenizer: "PreTrainedTokenizerBase"
    encoder: TemplateEncoder

    def equip(self, title: str, cache: CallCache, ledger: Ledger) -> Progress:
        """Hands the method its tools; gives the progress among them."""
        progress = Progress(title, len(self.digests), self.steps, ledger)
        self.method.equip(Tools(self.tokenizer, cache, ledger, progress))
        return progress


def _prepare(config: GenerateConfig, until: str) -> _Run:
    method = _method(config, until)
    digests = check_questions(method.source, method.asked)
    changed = changed_settings(config, config.output_dir)
    refuse_changes(_not_about_pairs(changed, method), config.output_dir)
    steps = method.check(digests)
    check_folder(config.output_dir, "output_dir")
    check_data_set(config)
    name, trust = config.tokenizer or config.policy.model, _trusts(config)
    tokenizer = load_counting_tokenizer(config.tokenizer, config.policy, "policy")
    encoder = TemplateEncoder(config.pairs.template, name, config.pairs.cutoff_len, trust)
    return _Run(method, digests, changed, steps, tokenizer, encoder)


def estimate(config: GenerateConfig) -> list[Expected]:
    """What a run from its beginning is expected to take, stage by stage, from its real input; calls nobody.

    Raises:
        UserError: input or settings cannot work.
    """
    method = _method(config)
    digests = check_questions(method.source, method.asked)
    method.check(digests)
    tokenizer = load_counting_tokenizer(config.tokenizer, config.policy, "policy")
    prices = {"embed": config.embedder.price, "sample": config.policy and config.policy.price}
    others = (config.judge or config.policy).price
    return [
        expected(stage, usage, prices.get(stage, others))
        for stage, usage in method.estimate(tokenizer).items()
        if usage.calls
    ]


def _method(config: GenerateConfig, until: str = "pairs") -> Method:
    kind = _METHODS[config.method]
    if until not in kind.stages:
        raise UserError(f"method: {config.method} has no stage {until!r}; it has {', '.join(kind.stages)}")
    return kind(config, until)


def _trusts(config: GenerateConfig) -> bool:
    return bool(config.policy and config.policy.trust_remote_code)


def _not_about_pairs(changed: dict[str, tuple[Any, Any]], method: Method) -> dict[str, tuple[Any, Any]]:
    return {
        name: values for name, values in changed.items() if not name.startswith("pairs.") and name not in method.repairs
    }


def _announce(config: GenerateConfig, total: int, pairs: Pairs, announced: list[str], progress: Progress) -> None:
    if pairs.skipped:
        progress.note(f"{pairs.skipped} lines of {PAIRS} cannot be read; their pairs are made again")
    progress.note(f"{total} questions from {config.input}")
    for line in announced:
        progress.note(line)
    progress.note(f"  pairs    -> {config.output_dir / PAIRS}")
    progress.note(f"  register -> {config.dataset_dir / 'dataset_info.json'} as {config.dataset_name}")


def _finish(
    config: GenerateConfig,
    ids: list[str],
    until: str,
    pairs: Pairs,
    method: Method,
    ledger: Ledger,
    tally: Tally,
    seconds: float,
) -> Result:
    made = len(pairs.ids(ids))
    whole = until == method.stages[-1]
    registration = "none"
    if whole:
        registration = register_pairs(config, ids, pairs, tally)
        write_whole(config.output_dir / PAIRS, pairs.lines(ids))  # in the input's order, as in the data folder
    summary = {
        "method": config.method,
        "questions": len(ids),
        "stage": until,
        "failed": tally.failed,
        "unfinished": tally.unfinished,
        "interrupted": tally.interrupted,
        "pairs": made,
        "unfit": pairs.unfit,
        "data_set": registration,
        **method.summary(),
        "calls": {stage: totals._asdict() for stage, totals in ledger.stages.items()},
        "cost": ledger.spent,
        "seconds": round(seconds, 1),
    }
    write_whole(config.output_dir / SUMMARY, [json.dumps(summary, indent=2, ensure_ascii=False), "\n"])
    _report(config.output_dir)
    return Result(summary, tally.exit_code(made if whole else tally.done, config.max_failure_rate))


def _report(output_dir: Path) -> None:
    """Writes the page about the run. Whatever is wrong with it, the run itself has ended well."""
    try:
        write_report(output_dir)
    except Exception as error:
        print(f"no {REPORT}: {first_line(error)}; longpo report {output_dir} tries again", file=sys.stderr, flush=True)
