"""`longpo synthesize self-instruct`: from documents to a registered SFT data set; carries on where it was stopped."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lf_longpo.config import SelfInstructConfig
from lf_longpo.engine.pipeline import FAILURES, Failures, Tally, run_questions
from lf_longpo.engine.progress import Progress
from lf_longpo.errors import UserError
from lf_longpo.files.journal import Journal, check_folder, write_whole
from lf_longpo.files.run_dir import (
    SUMMARY,
    changed_settings,
    locked,
    refuse_changed_questions,
    refuse_changes,
    save_settings,
)
from lf_longpo.models.adapters import fingerprint
from lf_longpo.models.cache import CALLS, CallCache
from lf_longpo.models.calls import Calls
from lf_longpo.models.factory import make_chat
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.tokenizers import chat_tokens, load_counting_tokenizer
from lf_longpo.models.usage import Expected, Usage, expected
from lf_longpo.plugin.registry import check_registration, register_dataset, sft_entry
from lf_longpo.synthesis.data_card import Card
from lf_longpo.synthesis.long_texts import LongText, LongTexts
from lf_longpo.synthesis.self_instruct import ANSWER, KEPT, QUESTION, SelfInstruct
from lf_longpo.text.language import detect_language

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WRITTEN = "instructions.jsonl"

# Tokens left for a question within the prompt for its answer.
_QUESTION_ROOM = 200
# Tokens that a question and an answer are taken to have.
_QUESTION_TOKENS, _ANSWER_TOKENS = 40, 250


def self_instruct(config: SelfInstructConfig) -> tuple[dict[str, Any], int]:
    """Writes questions about all documents, or carries on where an earlier start stopped, and registers them.

    Returns:
        What came of it (also written to `output_dir`/summary.json) and the exit code.

    Raises:
        UserError: documents, settings or the model cannot work; nothing was registered.
    """
    began = time.monotonic()
    refuse_changes(changed_settings(config, config.output_dir), config.output_dir)
    _check_targets(config)
    writer, tokenizer = SelfInstruct(config), _tokenizer(config)
    with locked(config.output_dir):
        # Outside of any event loop: parsing takes its time, and Ctrl-C is to end it.
        texts = LongTexts(config, config.output_dir, tokenizer)
        return asyncio.run(_run(config, writer, texts, tokenizer, began))


async def _run(
    config: SelfInstructConfig,
    writer: SelfInstruct,
    texts: LongTexts,
    tokenizer: "PreTrainedTokenizerBase",
    began: float,
) -> tuple[dict[str, Any], int]:
    output_dir = config.output_dir
    asked = json.dumps([*writer.asked, fingerprint(config.model.adapter)])
    digests = {text.id: sha256(f"{asked}{text.text}".encode()).hexdigest()[:16] for text in texts}
    refuse_changed_questions(digests, output_dir / WRITTEN)
    cache, ledger = CallCache(output_dir / CALLS), Ledger(config.max_cost)
    calls = Calls(make_chat(config.model, cache, ledger), config.model, tokenizer, cache, ledger, config.seed)
    try:
        with (
            Journal(output_dir / WRITTEN, ("digest", "written")) as journal,
            Failures(output_dir / FAILURES) as failures,
        ):
            missing = [id for id in digests if id not in journal]
            if missing:
                await calls.start()
                _check_window(config, writer, texts, tokenizer, calls.window)
            cache.open()
            ledger.carry_over(cache.totals())
            save_settings(config, output_dir)
            progress = Progress("self-instruct", len(digests), len(missing), ledger, "documents")
            work = partial(_work, writer, calls, digests, journal, progress)
            with progress:
                progress.note(f"{len(digests)} documents and parts -> {output_dir / WRITTEN}")
                in_flight = config.model.questions_at_once(2 * config.questions_per_document)
                tally = await run_questions(texts, len(digests), work, in_flight, failures, progress, ledger)
            summary = _finish(config, texts, journal, tally, ledger, time.monotonic() - began)
            return summary, tally.exit_code(summary["questions"], config.max_failure_rate)
    finally:
        await calls.close()  # before the cache: what still comes back is kept
        cache.close()


def estimate(config: SelfInstructConfig) -> list[Expected]:
    """What a run from its beginning is expected to take, stage by stage, from its real documents; calls nobody.

    Raises:
        UserError: documents or settings cannot work.
    """
    writer, tokenizer = SelfInstruct(config), _tokenizer(config)
    stages = {QUESTION: Usage(), ANSWER: Usage()}
    example = " ".join(["word"] * _QUESTION_TOKENS)
    with TemporaryDirectory() as folder:
        for text in LongTexts(config, Path(folder), tokenizer):
            for kind in writer.kinds(text.id):
                asking, answering = writer.asking(text, kind), writer.answering(text, example)
                for stage, render, tokens in (
                    (QUESTION, asking, _QUESTION_TOKENS),
                    (ANSWER, answering, _ANSWER_TOKENS),
                ):
                    # The text was counted, and joins its surroundings within a token or two.
                    prompt = text.tokens + chat_tokens(render(""), tokenizer)
                    stages[stage] += Usage(1, prompt, min(tokens, config.sampling.max_new_tokens))
    return [expected(stage, usage, config.model.price) for stage, usage in stages.items()]


def _check_window(
    config: SelfInstructConfig,
    writer: SelfInstruct,
    texts: LongTexts,
    tokenizer: "PreTrainedTokenizerBase",
    window: int,
) -> None:
    """Finds texts that the model could not read whole: it would be asked about what it was not shown.

    Raises:
        UserError: there is one.
    """
    longest = max(texts, key=lambda text: text.tokens)
    around = max(chat_tokens(writer.asking(longest, kind)(""), tokenizer) for kind in config.kinds)
    around = max(around, chat_tokens(writer.answering(longest, "")(""), tokenizer) + _QUESTION_ROOM)
    needed = longest.tokens + around + config.sampling.max_new_tokens
    if needed > window:
        raise UserError(
            f"max_tokens: {longest.id!r} with its prompt and an answer can take {needed:,} tokens, and the window of "
            f"{config.model.model} is {window:,}; set max_tokens to {config.max_tokens - (needed - window)} or less"
        )


def _tokenizer(config: SelfInstructConfig) -> "PreTrainedTokenizerBase":
    return load_counting_tokenizer(config.tokenizer, config.model, "model")


def _data_set(config: SelfInstructConfig) -> Path:
    return config.dataset_dir / f"{config.dataset_name}.jsonl"


def _check_targets(config: SelfInstructConfig) -> None:
    """Finds before any work what would keep the result from being written, or make documents of it."""
    check_folder(config.output_dir, "output_dir")
    target = _data_set(config)
    check_registration(config.dataset_dir, config.dataset_name, sft_entry(target.name))
    for name in config.inputs:
        source = Path(name).resolve()
        for setting, path in (("dataset_name", target), ("output_dir", config.output_dir)):
            if path.resolve() == source or (source.is_dir() and path.resolve().is_relative_to(source)):
                raise UserError(f"{setting}: {path} would be written into the input {name}; name another folder")


async def _work(
    writer: SelfInstruct,
    calls: Calls,
    digests: Mapping[str, str],
    journal: Journal,
    progress: Progress,
    text: LongText,
) -> None:
    """All questions about one document, where they are not there yet."""
    if text.id in journal:
        return
    written = await writer.write(text, calls)
    journal.append({"id": text.id, "digest": digests[text.id], "written": [asdict(one) for one in written]})
    for one in written:
        progress.count(one.outcome)
    progress.step()


def _finish(
    config: SelfInstructConfig, texts: LongTexts, journal: Journal, tally: Tally, ledger: Ledger, seconds: float
) -> dict[str, Any]:
    outcomes = Counter(one["outcome"] for text in texts for one in _written(text, journal))
    if outcomes[KEPT]:
        target = _data_set(config)
        card = Card("self-instruct", config, config.tokenizer or config.model.model)
        card.write(target, _rows(texts, journal))
        register_dataset(config.dataset_dir, config.dataset_name, sft_entry(target.name))
    summary = {
        "documents": tally.done + tally.failed + tally.unfinished,
        "left_out": texts.left_out,
        "questions": outcomes.pop(KEPT, 0),
        "questions_left_out": dict(outcomes),
        "failed": tally.failed,
        "unfinished": tally.unfinished,
        "interrupted": tally.interrupted,
        "calls": {stage: totals._asdict() for stage, totals in ledger.stages.items()},
        "cost": ledger.spent,
        "seconds": round(seconds, 1),
    }
    write_whole(config.output_dir / SUMMARY, [json.dumps(summary, indent=2, ensure_ascii=False), "\n"])
    return summary


def _written(text: LongText, journal: Journal) -> list[dict[str, Any]]:
    return journal.rows(text.id)[-1]["written"] if text.id in journal else []


def _rows(texts: LongTexts, journal: Journal) -> Iterator[dict[str, Any]]:
    """What is left, in the documents' order and LongReward's SFT format."""
    for text in texts:
        for number, one in enumerate(_written(text, journal)):
            if one["outcome"] == KEPT:
                yield {
                    "idx": f"{text.id}#{one['kind']}{number}",
                    "query": one["question"],
                    "answer": one["answer"],
                    "context": text.text,
                    "kind": one["kind"],
                    "language": detect_language(text.text),
                    "source": text.source,
                    "licence": text.licence,
                    "documents": [text.document],
                    "tokens": text.tokens,
                }
