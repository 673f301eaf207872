"""`longpo generate`: puts models, method, pipeline and registry together for one run.

All that can be wrong with the input, the settings or the models is found before the run's folder is touched.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_longpo.config import GenerateConfig
from lf_longpo.errors import UserError
from lf_longpo.journal import check_folder, write_whole
from lf_longpo.longmab.method import (
    PAIRS,
    PROBES,
    ROLLOUTS,
    Journals,
    LongMab,
    Prompts,
    all_rolled_out,
    bandit_summary,
)
from lf_longpo.models.cache import CallCache
from lf_longpo.models.calls import Calls
from lf_longpo.models.chat import make_chat
from lf_longpo.models.embedders import make_embedder
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.pipeline import Tally, run_questions
from lf_longpo.plugin.encoding import TemplateEncoder
from lf_longpo.plugin.registry import check_registration, ranking_entry, register_dataset
from lf_longpo.progress import Progress
from lf_longpo.questions import check_questions, read_questions
from lf_longpo.run_dir import changed_settings, locked, refuse_changed_questions, refuse_changes, save_settings


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to."""

    summary: dict[str, Any]
    exit_code: int


async def generate(config: GenerateConfig) -> Result:
    """Runs or carries on one generation, and registers its pairs.

    Raises:
        UserError: input, settings or models that cannot work; nothing was written unless a model gave out midway.
    """
    began = time.monotonic()
    output_dir = config.output_dir
    prompts = Prompts(config.longmab)
    digests = check_questions(config.input, config.input_split, prompts.texts)
    ids = list(digests)
    changed = changed_settings(config, output_dir)
    refuse_changes({name: values for name, values in changed.items() if not name.startswith("pairs.")}, output_dir)
    refuse_changed_questions(digests, output_dir / PROBES)
    _check_targets(config)
    tokenizer_name = config.tokenizer or config.policy.model
    trust = config.policy.trust_remote_code
    tokenizer = load_tokenizer(tokenizer_name, "tokenizer", trust)
    encoder = TemplateEncoder(config.pairs.template, tokenizer_name, config.pairs.cutoff_len, trust)

    cache = CallCache(output_dir / "calls.sqlite")
    progress = Progress("longmab", len(ids), config.longmab.rounds + 1)
    calls = Calls(make_chat(config.policy), config.policy, tokenizer, cache, config.seed, progress.tokens)
    embedder = make_embedder(config.embedder, cache)
    try:
        if not all_rolled_out(output_dir, ids, config.longmab.rounds):
            await calls.start()
            if config.longmab.init != "random":
                await embedder.start()
        with locked(output_dir):
            cache.open()
            if changed:  # only how pairs are made from roll-outs: they are made anew
                (output_dir / PAIRS).unlink(missing_ok=True)
            save_settings(config, output_dir)
            journals = Journals(output_dir)
            method = LongMab(
                config.longmab, config.seed, prompts, calls, embedder, tokenizer, encoder, journals, progress
            )
            try:
                with progress:
                    _announce(config, len(ids), journals, progress)
                    tally = await run_questions(
                        read_questions(config.input, config.input_split),
                        method.work,
                        # More questions than calls, so that a slot is never idle while a question is chunked.
                        in_flight=2 * config.policy.max_concurrency,
                        failures=output_dir / "failures.jsonl",
                        progress=progress,
                    )
                return _finish(config, ids, journals, cache, tally, progress, time.monotonic() - began)
            finally:
                journals.close()
    finally:
        cache.close()
        await asyncio.gather(calls.close(), embedder.close())


def _check_targets(config: GenerateConfig) -> None:
    """Finds before any work what would keep its result from being written."""
    check_folder(config.output_dir, "output_dir")
    check_registration(config.dataset_dir, config.dataset_name, ranking_entry(_file_name(config)))
    target = config.dataset_dir / _file_name(config)
    if target.resolve() == Path(config.input).resolve():
        raise UserError(f"the pairs would be written over the input {target}; set another dataset_name or dataset_dir")


def _announce(config: GenerateConfig, total: int, journals: Journals, progress: Progress) -> None:
    folder = config.output_dir
    if skipped := journals.skipped():
        progress.note(f"{skipped} lines of the journals cannot be read; their work is done again")
    progress.note(f"{total} questions from {config.input}; policy {config.policy.model} ({config.policy.backend})")
    progress.note(f"  probe    -> {folder / PROBES}")
    progress.note(f"  roll-out -> {folder / ROLLOUTS} ({config.longmab.rounds} rounds a question)")
    progress.note(f"  pairs    -> {folder / PAIRS}")
    progress.note(f"  register -> {config.dataset_dir / 'dataset_info.json'} as {config.dataset_name}")


def _finish(
    config: GenerateConfig,
    ids: list[str],
    journals: Journals,
    cache: CallCache,
    tally: Tally,
    progress: Progress,
    seconds: float,
) -> Result:
    pairs = sum(id in journals.pairs for id in ids)
    if pairs:
        _write_pairs(config, journals, ids)
    summary = {
        "method": config.method,
        "questions": len(ids),
        "left_out": progress.counts["left out"],
        "all_equal": progress.counts["all equal"],
        "failed": tally.failed,
        "pairs": pairs,
        **bandit_summary(journals, ids, config.longmab.rounds),
        "calls": {stage: totals._asdict() for stage, totals in cache.totals().items()},
        "seconds": round(seconds, 1),
    }
    write_whole(config.output_dir / "summary.json", [json.dumps(summary, indent=2), "\n"])
    return Result(summary, tally.exit_code(pairs, config.max_failure_rate))


def _write_pairs(config: GenerateConfig, journals: Journals, ids: list[str]) -> None:
    """Puts the pairs into the input's order, in the run's folder and in the data folder, and registers them."""
    # One type for the whole column, or LLaMA-Factory's loader (Arrow) refuses the file.
    single = all(len(_pair(journals, id)["answer"]) == 1 for id in ids if id in journals.pairs)

    def lines() -> Iterator[str]:
        for id in ids:
            if id in journals.pairs:
                pair = _pair(journals, id)
                yield json.dumps(pair | {"answer": pair["answer"][0]} if single else pair, ensure_ascii=False) + "\n"

    write_whole(config.dataset_dir / _file_name(config), lines())
    write_whole(config.output_dir / PAIRS, lines())
    register_dataset(config.dataset_dir, config.dataset_name, ranking_entry(_file_name(config)))


def _pair(journals: Journals, id: str) -> dict[str, Any]:
    pair = journals.pairs.rows(id)[-1]
    return pair | {"answer": [pair["answer"]] if isinstance(pair["answer"], str) else pair["answer"]}


def _file_name(config: GenerateConfig) -> str:
    return f"{config.dataset_name}.jsonl"
