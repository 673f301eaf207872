"""`longpo synthesize self-instruct`: from documents to a registered SFT data set; resumes where it stopped."""

import asyncio
import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lf_longpo.config import SelfInstructConfig
from lf_longpo.engine.progress import Progress
from lf_longpo.engine.session import Session
from lf_longpo.errors import UserError
from lf_longpo.files.journal import Journal, RowsById
from lf_longpo.files.run_dir import CONFIG, refuse_changed_questions
from lf_longpo.models.adapters import fingerprint
from lf_longpo.models.calls import Calls
from lf_longpo.models.tokenizers import chat_tokens, load_counting_tokenizer
from lf_longpo.models.usage import Expected, Usage, expected
from lf_longpo.plugin.registry import check_registration, register_dataset, sft_entry
from lf_longpo.synthesis.data_card import Card
from lf_longpo.synthesis.long_texts import LongText, LongTexts, are_parsed
from lf_longpo.synthesis.self_instruct import ANSWER, KEPT, QUESTION, SelfInstruct
from lf_longpo.text.language import detect_language

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WRITTEN = "instructions.jsonl"

_FIELDS = ("digest", "written")
# Tokens left for a question within the prompt for its answer.
_QUESTION_ROOM = 200
# The assumed lengths of a question and an answer.
_QUESTION_TOKENS, _ANSWER_TOKENS = 40, 250


def self_instruct(config: SelfInstructConfig) -> tuple[dict[str, Any], int]:
    """Writes questions about all documents, or resumes where an earlier start stopped, and registers them.

    Returns:
        The summary (also written to `output_dir`/summary.json) and the exit code.

    Raises:
        UserError: documents, settings or the model cannot work; nothing was registered.
    """
    with TemporaryDirectory() as folder:
        return asyncio.run(_run(config, Path(folder)))


async def _run(config: SelfInstructConfig, scratch: Path) -> tuple[dict[str, Any], int]:
    output_dir = config.output_dir
    async with Session(config) as session:
        session.check_settings()
        _check_targets(config)
        writer = SelfInstruct(config)
        if not (output_dir / CONFIG).is_file():  # a new run needs the model
            await session.check_models(config.model)
        tokenizer = _tokenizer(config)
        calls = session.chat(config.model, tokenizer)
        if not (output_dir / CONFIG).is_file():  # before the time that parsing takes
            await session.start(config.model)
        with _interruptible():
            texts = LongTexts(config, output_dir if are_parsed(config, output_dir) else scratch, tokenizer)
        digests = _digests(config, writer, texts)
        refuse_changed_questions(digests, output_dir / WRITTEN)
        written = RowsById(output_dir / WRITTEN, _FIELDS)
        written.read_on()
        missing = sum(not written.rows(id) for id in digests)
        if missing:
            await session.start(config.model)
            _check_window(config, writer, texts, tokenizer, calls.window)
        session.open()
        texts.move_to(output_dir)
        progress = Progress("self-instruct", len(digests), missing, session.ledger, "documents")
        with Journal(output_dir / WRITTEN, _FIELDS) as journal:
            work = partial(_work, writer, calls, digests, journal, progress)
            progress.note(f"{len(digests)} documents and parts -> {output_dir / WRITTEN}")
            in_flight = config.model.questions_at_once(2 * config.questions_per_document)
            tally = await session.run(texts, len(digests), work, in_flight, progress, journal.ids)
            outcomes = Counter(row["outcome"] for text in texts for row in _written(text, journal))
            if outcomes[KEPT]:
                _register(config, texts, journal)
        summary = {
            "documents": tally.done + tally.failed + tally.unfinished,
            "left_out": texts.left_out,
            "questions": outcomes.pop(KEPT, 0),
            "questions_left_out": dict(outcomes),
            **tally.counts(),
            **session.totals(),
        }
        session.write_summary(summary)
        return summary, tally.exit_code(summary["questions"], config.max_failure_rate)


@contextmanager
def _interruptible() -> Iterator[None]:
    """While the block lasts, Ctrl-C raises `KeyboardInterrupt` at once; an event loop would wait for the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _digests(config: SelfInstructConfig, writer: SelfInstruct, texts: LongTexts) -> dict[str, str]:
    """Hashes of the texts and of all that determines their prompts, by id."""
    asked = json.dumps([*writer.asked, fingerprint(config.model.adapter)])
    return {text.id: sha256(f"{asked}{text.text}".encode()).hexdigest()[:16] for text in texts}


def estimate(config: SelfInstructConfig) -> list[Expected]:
    """What a new run is expected to take, stage by stage, from its real documents; makes no calls.

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
                    # The text was counted before; joined with the prompt, the count differs by a token or two.
                    prompt = text.tokens + chat_tokens(render(""), tokenizer, config.model)
                    stages[stage] += Usage(1, prompt, min(tokens, config.sampling.max_new_tokens))
    return [expected(stage, usage, config.model.price) for stage, usage in stages.items()]


def _check_window(
    config: SelfInstructConfig,
    writer: SelfInstruct,
    texts: LongTexts,
    tokenizer: "PreTrainedTokenizerBase",
    window: int,
) -> None:
    """Refuses texts that do not fit the model's window: it would write about what it was not shown.

    Raises:
        UserError: there is such a text.
    """
    longest = max(texts, key=lambda text: text.tokens)
    around = max(chat_tokens(writer.asking(longest, kind)(""), tokenizer, config.model) for kind in config.kinds)
    around = max(around, chat_tokens(writer.answering(longest, "")(""), tokenizer, config.model) + _QUESTION_ROOM)
    needed = longest.tokens + around + config.sampling.max_new_tokens + config.model.thinking_tokens
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
    """Finds, before any work, what would keep the result from being written or make it a document of the input."""
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
    """All questions about one document, where they are not written yet."""
    if text.id in journal:
        return
    written = await writer.write(text, calls)
    journal.append({"id": text.id, "digest": digests[text.id], "written": [asdict(row) for row in written]})
    for row in written:
        progress.count(row.outcome)
    progress.step()


def _register(config: SelfInstructConfig, texts: LongTexts, journal: Journal) -> None:
    target = _data_set(config)
    card = Card("self-instruct", config, config.tokenizer or config.model.model)
    card.write(target, _rows(texts, journal))
    register_dataset(config.dataset_dir, config.dataset_name, sft_entry(target.name))


def _written(text: LongText, journal: Journal) -> list[dict[str, Any]]:
    return journal.rows(text.id)[-1]["written"] if text.id in journal else []


def _rows(texts: LongTexts, journal: Journal) -> Iterator[dict[str, Any]]:
    """The questions that are kept, in the documents' order and LongReward's SFT format."""
    for text in texts:
        for number, row in enumerate(_written(text, journal)):
            if row["outcome"] == KEPT:
                yield {
                    "idx": f"{text.id}#{row['kind']}{number}",
                    "query": row["question"],
                    "answer": row["answer"],
                    "context": text.text,
                    "kind": row["kind"],
                    "language": detect_language(text.text),
                    "source": text.source,
                    "licence": text.licence,
                    "documents": [text.document],
                    "tokens": text.tokens,
                }
