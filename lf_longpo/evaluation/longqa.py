"""Long-context question answering, scored as LongMab-PO scores it (arXiv 2508.13993, section 4).

The model answers each question over its whole context; EM, F1 and SubEM look at the answer that it gives in the asked
form and are 0 without one.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lf_longpo.aio import all_settled
from lf_longpo.config import LongQAConfig
from lf_longpo.errors import UserError
from lf_longpo.evaluation.intervals import interval_of_mean
from lf_longpo.journal import Journal, check_folder, read_rows, write_whole
from lf_longpo.models.cache import CALLS, CallCache
from lf_longpo.models.calls import Calls
from lf_longpo.models.chat import make_chat
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.pipeline import FAILURES, Failures, run_questions
from lf_longpo.progress import Progress
from lf_longpo.questions import Source, check_questions, read_questions
from lf_longpo.records import Question
from lf_longpo.run_dir import changed_settings, locked, refuse_changed_questions, refuse_changes, save_settings
from lf_longpo.text.answers import exact_match, extract_answer, f1, sub_exact_match
from lf_longpo.text.prompts import QA_FIELDS, QA_PROMPTS, around_context, load_prompt

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"
METRICS = ("em", "f1", "sub_em", "sub_em_output", "answered")
_ROW = ("digest", "sample", "prediction", *METRICS)


def score(prediction: str, answers: Iterable[str]) -> dict[str, float]:
    """Scores of one prediction, each in [0, 1].

    `em`, `f1` and `sub_em` are those of the extracted answer; `sub_em_output` looks for a gold answer anywhere in the
    output; `answered` is 1 where an answer was given in the asked form.
    """
    golds = list(answers)
    answer, found = extract_answer(prediction)
    return {
        "em": exact_match(answer, golds) if found else 0.0,
        "f1": f1(answer, golds) if found else 0.0,
        "sub_em": sub_exact_match(answer, golds) if found else 0.0,
        "sub_em_output": sub_exact_match(prediction, golds),
        "answered": float(found),
    }


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Each metric's mean over the rows of one question."""
    return {metric: sum(row[metric] for row in rows) / len(rows) for metric in METRICS}


def load_results(folder: Path, asker: str) -> dict[str, Any]:
    """The results.json of an earlier evaluation; `asker` is what named it, for the error.

    Raises:
        UserError: there is none.
    """
    try:
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{asker}: {folder} holds no {RESULTS} that can be read ({error})") from None
    if not isinstance(results, dict) or not {"model", "adapter", "questions", *METRICS} <= set(results):
        raise UserError(f"{asker}: {folder / RESULTS} is not the result of an evaluation")
    return results


async def evaluate_longqa(config: LongQAConfig) -> tuple[dict[str, Any], int]:
    """Answers and scores all questions, or carries on where an earlier start was killed.

    Returns:
        The results (also written to `output_dir`/results.json) and the exit code.

    Raises:
        UserError: input, settings or the model cannot work.
    """
    output_dir = config.output_dir
    template = load_prompt(config.prompt, QA_PROMPTS, QA_FIELDS, "prompt")
    source = Source(config.input, config.input_split)
    digests = check_questions(source, (template, _fingerprint(config.model.adapter)))
    refuse_changes(changed_settings(config, output_dir), output_dir)
    refuse_changed_questions(digests, output_dir / PREDICTIONS)
    check_folder(output_dir, "output_dir")
    tokenizer = load_tokenizer(config.tokenizer or config.model.model, "tokenizer", config.model.trust_remote_code)
    cache = CallCache(output_dir / CALLS)
    ledger = Ledger()
    progress = Progress("longqa", len(digests), config.samples * len(digests), ledger)
    calls = Calls(make_chat(config.model, cache, ledger), config.model, tokenizer, cache, ledger, config.seed)
    answered = {(row["id"], row["sample"]) for row in read_rows(output_dir / PREDICTIONS, _ROW)}
    wanted = {(id, sample) for id in digests for sample in range(config.samples)}
    try:
        if not wanted <= answered:
            await calls.start()
        with (
            locked(output_dir),
            Journal(output_dir / PREDICTIONS, _ROW) as predictions,
            Failures(output_dir / FAILURES) as failures,
        ):
            cache.open()
            ledger.carry_over(cache.totals())
            save_settings(config, output_dir)
            # In batches their contexts are in memory for hours.
            in_flight = (
                config.model.questions_at_once(max(10, config.samples))
                if config.model.batch
                else 2 * config.model.calls_at_once
            )
            answer = partial(_answer, config, template, digests, calls, predictions, progress)
            with progress:
                progress.note(f"{len(digests)} questions from {config.input} -> {output_dir / PREDICTIONS}")
                tally = await run_questions(
                    read_questions(source),
                    len(digests),
                    answer,
                    in_flight=in_flight,
                    failures=failures,
                    progress=progress,
                    ledger=ledger,
                )
            results = _results(config, list(digests), predictions, tally.failed)
            if not tally.interrupted:
                write_whole(output_dir / RESULTS, [json.dumps(results, indent=2), "\n"])
            return results, tally.exit_code(results["questions"], config.max_failure_rate)
    finally:
        cache.close()
        await calls.close()


def _fingerprint(adapter: str | None) -> str:
    """Tells one training's adapter from the next one's in the same folder."""
    weights = Path(adapter) / "adapter_model.safetensors" if adapter else None
    if weights is None or not weights.is_file():
        return ""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _answer(
    config: LongQAConfig,
    template: str,
    digests: Mapping[str, str],
    calls: Calls,
    predictions: Journal,
    progress: Progress,
    question: Question,
) -> None:
    missing = set(range(config.samples)) - {row["sample"] for row in predictions.rows(question.id)}
    progress.skip(config.samples - len(missing))

    async def sample(number: int) -> None:
        completion = await calls.complete(
            "longqa",
            question.id,
            number,
            config.sampling,
            around_context(template, question=question.question),
            question.context,
            config.max_prompt_tokens,
        )
        scores = score(completion.text, question.answers)
        row = {"id": question.id, "digest": digests[question.id], "sample": number, "prediction": completion.text}
        predictions.append(row | scores)
        progress.step()

    await all_settled(*(sample(number) for number in sorted(missing)))


def _results(config: LongQAConfig, ids: list[str], predictions: Journal, failed: int) -> dict[str, Any]:
    scores: list[dict[str, float]] = []
    for id in ids:
        rows = {row["sample"]: row for row in predictions.rows(id) if row["sample"] < config.samples}
        if len(rows) == config.samples:
            scores.append(means(list(rows.values())))
    intervals = {metric: interval_of_mean([one[metric] for one in scores]) for metric in METRICS} if scores else {}
    return {
        "model": config.model.model,
        "adapter": config.model.adapter,
        "input": config.input,
        "questions": len(scores),
        "samples": config.samples,
        "failed": failed,
        **{metric: intervals[metric].mean if scores else None for metric in METRICS},
        "intervals": {metric: [interval.low, interval.high] for metric, interval in intervals.items()},
    }
