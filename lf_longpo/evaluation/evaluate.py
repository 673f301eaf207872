"""`longpo evaluate`: asks models about every item of a benchmark, has the answers scored, and carries on where it was.

Knows no protocol. A finished sample is a row of predictions.jsonl; finished calls of samples that are not finished are
in the call cache.
"""

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from lf_longpo.aio import all_settled
from lf_longpo.config import ChatConfig, EvaluateConfig
from lf_longpo.data.questions import refuse_repeated_ids
from lf_longpo.engine.pipeline import FAILURES, Failures, run_questions
from lf_longpo.engine.progress import Progress
from lf_longpo.errors import UserError
from lf_longpo.evaluation.benchmark import Benchmark
from lf_longpo.evaluation.items import Item, key_of
from lf_longpo.evaluation.results import FIELDS, PREDICTIONS, RESULTS, Scores, question_scores, summarise
from lf_longpo.files.faults import Faults
from lf_longpo.files.journal import Journal, Row, check_folder, read_rows, write_whole
from lf_longpo.files.run_dir import changed_settings, locked, refuse_changed_questions, refuse_changes, save_settings
from lf_longpo.models.adapters import fingerprint
from lf_longpo.models.cache import CALLS, CallCache
from lf_longpo.models.calls import Calls
from lf_longpo.models.embedded import is_embedded
from lf_longpo.models.factory import make_chat
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.tokenizers import chat_tokens, load_counting_tokenizer
from lf_longpo.models.usage import Expected, Usage, expected
from lf_longpo.text.prompts import around_context

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Share of max_new_tokens that answers take; small models end none early.
_OUTPUT_SHARE = 0.3


async def evaluate(config: EvaluateConfig, benchmark: Benchmark) -> tuple[dict[str, Any], int]:
    """Answers and scores all items, or carries on where an earlier start stopped.

    Returns:
        The results (also written to `output_dir`/results.json, unless it was interrupted) and the exit code.

    Raises:
        UserError: input, settings or a model cannot work.
    """
    began = time.monotonic()
    digests, sets = _check(config, benchmark)
    output_dir = config.output_dir
    refuse_changes(changed_settings(config, output_dir), output_dir)
    refuse_changed_questions(digests, output_dir / PREDICTIONS, _row_key)
    check_folder(output_dir, "output_dir")
    fields = (*FIELDS, *benchmark.metrics)
    there = {(_row_key(row), row["sample"]) for row in read_rows(output_dir / PREDICTIONS, fields)}
    tokenizer = _tokenizer(config, benchmark)
    cache, ledger = CallCache(output_dir / CALLS), Ledger(config.max_cost)
    progress = Progress(benchmark.name, len(digests), config.samples * len(digests), ledger)
    # One that has two parts is loaded once.
    distinct = {_key(model): model for model in _all_models(benchmark)}
    calls = {
        key: Calls(make_chat(model, cache, ledger), model, tokenizer, cache, ledger, config.seed)
        for key, model in distinct.items()
    }
    models = {stage: calls[_key(model)] for stage, model in benchmark.models.items()}
    benchmark.equip(benchmark.judge and calls[_key(benchmark.judge)])
    try:
        if work_left := not {(key, sample) for key in digests for sample in range(config.samples)} <= there:
            await all_settled(*(model.start() for model in calls.values()))
        with (
            locked(output_dir),
            Journal(output_dir / PREDICTIONS, fields, _row_key) as predictions,
            Failures(output_dir / FAILURES) as failures,
        ):
            if work_left:  # of fewer questions
                (output_dir / RESULTS).unlink(missing_ok=True)
            cache.open()
            ledger.carry_over(cache.totals())
            save_settings(config, output_dir)
            work = partial(_work, config, benchmark, models, digests, predictions, progress)
            with progress:
                progress.note(f"{len(digests)} questions of {', '.join(sets)} -> {output_dir / PREDICTIONS}")
                items = (item for _, item in benchmark.items())
                in_flight = _in_flight(config, benchmark)
                tally = await run_questions(items, len(digests), work, in_flight, failures, progress, ledger)
            results = _results(config, benchmark, sets, predictions) | {
                "failed": tally.failed,
                "unfinished": tally.unfinished,
                "interrupted": tally.interrupted,
                "calls": {stage: totals._asdict() for stage, totals in ledger.stages.items()},
                "cost": ledger.spent,
                "seconds": round(time.monotonic() - began, 1),
            }
            results["by_question"] = results.pop("by_question")  # behind what people read
            if not tally.unfinished:
                write_whole(output_dir / RESULTS, [json.dumps(results, indent=2, ensure_ascii=False), "\n"])
            exit_code = tally.exit_code(results["questions"], config.max_failure_rate)
            too_few = results["unjudged"] > config.max_failure_rate * results["questions"] * config.samples
            return results, exit_code or int(too_few)
    finally:
        await all_settled(*(model.close() for model in calls.values()))  # before the cache: what comes back is kept
        cache.close()


def estimate(config: EvaluateConfig, benchmark: Benchmark) -> list[Expected]:
    """What an evaluation from its beginning is expected to take, stage by stage, from its real input; calls nobody.

    Raises:
        UserError: input or settings cannot work.
    """
    _check(config, benchmark)
    tokenizer = _tokenizer(config, benchmark)
    stages: dict[str, Usage] = {}
    for _, item in benchmark.items():
        prompt = chat_tokens(_render(benchmark, item)(item.context), tokenizer)
        parts = benchmark.estimate(item, tokenizer)
        for stage, model in benchmark.models.items():
            window = model.context_window or tokenizer.model_max_length
            limit = min(config.max_prompt_tokens, window - config.sampling.max_new_tokens)
            share = 1.0 if is_embedded(model.model) else _OUTPUT_SHARE
            parts[stage] = Usage(1, min(prompt, limit), int(share * config.sampling.max_new_tokens))
        for stage, usage in parts.items():
            stages[stage] = stages.get(stage, Usage()) + usage.times(config.samples)
    judging = benchmark.judge and benchmark.judge.price
    prices = {stage: model.price for stage, model in benchmark.models.items()}
    return [expected(stage, usage, prices.get(stage, judging)) for stage, usage in stages.items()]


def _check(config: EvaluateConfig, benchmark: Benchmark) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Reads all items once.

    Returns:
        Digests of the items with all that is asked about them, by key; and of the items alone, by id, by set.
    """
    asked = (*benchmark.asked, *(fingerprint(model.adapter) for model in _all_models(benchmark)))
    digests: dict[str, str] = {}
    sets: dict[str, dict[str, str]] = {}
    with Faults() as faults:
        for _, item in refuse_repeated_ids(benchmark.items(faults), faults):
            digests[item.key] = item.digest(*asked)
            sets.setdefault(item.set, {})[item.id] = item.digest()
    if not digests:
        raise UserError(f"{config.input} holds no questions")
    return digests, sets


def _row_key(row: Row) -> str | None:
    set, id = row.get("set"), row.get("id")
    return key_of(set, id) if isinstance(set, str) and isinstance(id, str) else None


def _all_models(benchmark: Benchmark) -> list[ChatConfig]:
    return [*benchmark.models.values(), *([benchmark.judge] if benchmark.judge else [])]


def _key(model: ChatConfig) -> str:
    return model.model_dump_json()


def _tokenizer(config: EvaluateConfig, benchmark: Benchmark) -> "PreTrainedTokenizerBase":
    first = next(iter(benchmark.models.values()))
    return load_counting_tokenizer(config.tokenizer, first, "model")


def _in_flight(config: EvaluateConfig, benchmark: Benchmark) -> int:
    models = _all_models(benchmark)
    batched = [model.questions_at_once(max(10, config.samples)) for model in models if model.batch]
    # In batches the contexts are in memory for hours.
    return max(batched, default=max(2 * model.calls_at_once for model in models))


def _render(benchmark: Benchmark, item: Item) -> Callable[[str], str]:
    return around_context(benchmark.template, question=item.question)


async def _work(
    config: EvaluateConfig,
    benchmark: Benchmark,
    models: Mapping[str, Calls],
    digests: Mapping[str, str],
    predictions: Journal,
    progress: Progress,
    item: Item,
) -> None:
    """All samples of one item, from wherever they stand."""
    missing = set(range(config.samples)) - {row["sample"] for row in predictions.rows(item.key)}
    progress.skip(config.samples - len(missing))
    render = _render(benchmark, item)

    async def sample(number: int) -> None:
        completions = await all_settled(
            *(
                model.complete(stage, item.id, number, config.sampling, render, item.context, config.max_prompt_tokens)
                for stage, model in models.items()
            )
        )
        row = {"id": item.id, "set": item.set, "digest": digests[item.key], "sample": number}
        predictions.append(row | await benchmark.score(item, [completion.text for completion in completions]))
        progress.step()

    await all_settled(*(sample(number) for number in sorted(missing)))


def _results(
    config: EvaluateConfig, benchmark: Benchmark, sets: Mapping[str, Mapping[str, str]], predictions: Journal
) -> dict[str, Any]:
    scores: dict[str, dict[str, Scores]] = {}
    unjudged = unread = odd_golds = 0
    for name, digests in sets.items():
        for id in digests:
            rows = {row["sample"]: row for row in predictions.rows(key_of(name, id))}
            if len(rows) == config.samples:
                scores.setdefault(name, {})[id] = question_scores(rows.values(), benchmark.metrics)
                unread += sum(row.get("unread_answer", False) for row in rows.values())
                odd_golds += any(row.get("gold_in_every_text", False) for row in rows.values())
                unjudged += sum(None in (row[metric] for metric in benchmark.metrics) for row in rows.values())
    first, *others = benchmark.models.values()
    return {
        "benchmark": benchmark.name,
        "model": first.model,
        "adapter": first.adapter,
        **({"against": {"model": others[0].model, "adapter": others[0].adapter}} if others else {}),
        "judge": benchmark.judge and benchmark.judge.model,
        "input": config.input,
        "samples": config.samples,
        "metrics": list(benchmark.metrics),
        "unjudged": unjudged,
        "unread_answers": unread,
        "gold_in_every_text": odd_golds,
        **summarise(scores, benchmark.metrics, benchmark.groups),
        "by_question": {
            name: {id: {"digest": sets[name][id]} | one for id, one in its.items()} for name, its in scores.items()
        },
    }
