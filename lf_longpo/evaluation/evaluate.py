"""`longpo evaluate`: answers every item of a benchmark with its models, has the answers scored, and resumes.

Knows no benchmark. A finished sample is a row of predictions.jsonl; the finished calls of other samples are in the call
cache.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from lf_longpo.aio import all_settled
from lf_longpo.config import ChatConfig, EvaluateConfig
from lf_longpo.data.questions import refuse_repeated_ids
from lf_longpo.engine.progress import Progress
from lf_longpo.engine.session import Session
from lf_longpo.errors import UserError
from lf_longpo.evaluation.benchmark import Benchmark
from lf_longpo.evaluation.items import Item, key_of, key_of_row
from lf_longpo.evaluation.results import FIELDS, PREDICTIONS, RESULTS, Scores, question_scores, summarise
from lf_longpo.files.faults import Faults
from lf_longpo.files.journal import Journal, Row, read_rows
from lf_longpo.files.run_dir import refuse_changed_questions
from lf_longpo.models.adapters import fingerprint
from lf_longpo.models.calls import Call, Calls
from lf_longpo.models.chat import Completion
from lf_longpo.models.embedded import is_embedded
from lf_longpo.models.tokenizers import NO_LIMIT, chat_tokens, load_counting_tokenizer, own_window
from lf_longpo.models.usage import Expected, Usage, expected
from lf_longpo.text.prompts import around_context

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The share of max_new_tokens that answers take. Small models end no answer early.
_OUTPUT_SHARE = 0.3


async def evaluate(config: EvaluateConfig, benchmark: Benchmark) -> tuple[dict[str, Any], int]:
    """Answers and scores all items, or resumes where an earlier start stopped.

    Returns:
        The results (also written to `output_dir`/results.json where no item is unfinished) and the exit code.

    Raises:
        UserError: input, settings or a model cannot work.
    """
    output_dir = config.output_dir
    fields = (*FIELDS, *benchmark.metrics)
    async with Session(config, summary=RESULTS) as session:
        session.check_settings()
        digests, sets = _check(config, benchmark)
        refuse_changed_questions(digests, output_dir / PREDICTIONS, key_of_row)
        finished = {(key_of_row(row), row["sample"]) for row in read_rows(output_dir / PREDICTIONS, fields)}
        is_finished = {(key, sample) for key in digests for sample in range(config.samples)} <= finished
        needed = [] if is_finished else _all_models(benchmark)
        await session.check_models(*needed)
        tokenizer = _tokenizer(config, benchmark)
        models = {stage: session.chat(model, tokenizer) for stage, model in benchmark.models.items()}
        judge = session.chat(benchmark.judge, tokenizer) if benchmark.judge else None
        benchmark.equip(judge)
        await session.start(*needed)
        session.open()
        progress = Progress(benchmark.name, len(digests), config.samples * len(digests), session.ledger)
        with Journal(output_dir / PREDICTIONS, fields, key_of_row) as predictions:
            work = partial(_work, config, benchmark, models, digests, predictions, progress)
            progress.note(f"{len(digests)} questions of {', '.join(sets)} -> {output_dir / PREDICTIONS}")

            def answered() -> set[str]:
                return {key for key in digests if len(predictions.rows(key)) >= config.samples}

            items = (item for _, item in benchmark.items())
            tally = await session.run(items, len(digests), work, _in_flight(config, benchmark), progress, answered)
            results = _results(config, benchmark, sets, predictions) | tally.counts() | session.totals()
        results["by_question"] = results.pop("by_question")  # after what people read
        if not tally.unfinished:
            session.write_summary(results)
        exit_code = tally.exit_code(results["questions"], config.max_failure_rate)
        too_many = results["unjudged"] > config.max_failure_rate * results["questions"] * config.samples
        return results, exit_code or int(too_many)


def estimate(config: EvaluateConfig, benchmark: Benchmark) -> list[Expected]:
    """What a new evaluation is expected to take, stage by stage, from its real input; makes no calls.

    Raises:
        UserError: input or settings cannot work.
    """
    _check(config, benchmark)
    tokenizer = _tokenizer(config, benchmark)
    stages: dict[str, Usage] = {}
    for _, item in benchmark.items():
        prompt = _render(benchmark, item)(item.context)
        parts = benchmark.estimate(item, tokenizer)
        for stage, model in benchmark.models.items():
            window = own_window(model, tokenizer) or NO_LIMIT
            limit = min(config.max_prompt_tokens, window - config.sampling.max_new_tokens)
            share = 1.0 if is_embedded(model.model) else _OUTPUT_SHARE
            size = min(chat_tokens(prompt, tokenizer, model), limit)
            parts[stage] = Usage(1, size, int(share * config.sampling.max_new_tokens))
        for stage, usage in parts.items():
            stages[stage] = stages.get(stage, Usage()) + usage.times(config.samples)
    judging = benchmark.judge.price if benchmark.judge else None
    prices = {stage: model.price for stage, model in benchmark.models.items()}
    return [expected(stage, usage, prices.get(stage, judging)) for stage, usage in stages.items()]


def _check(config: EvaluateConfig, benchmark: Benchmark) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Reads all items once.

    Returns:
        Digests of the items and of all that determines their prompts, by key; digests of the items alone, by id, by
        set.
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


def _all_models(benchmark: Benchmark) -> list[ChatConfig]:
    return [*benchmark.models.values(), *([benchmark.judge] if benchmark.judge else [])]


def _tokenizer(config: EvaluateConfig, benchmark: Benchmark) -> "PreTrainedTokenizerBase":
    first = next(iter(benchmark.models.values()))
    return load_counting_tokenizer(config.tokenizer, first, "model")


def _in_flight(config: EvaluateConfig, benchmark: Benchmark) -> int:
    models = _all_models(benchmark)
    batched = [model.questions_at_once(max(10, config.samples)) for model in models if model.batch]
    # In batches, contexts stay in memory for hours.
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
    """All samples of one item that are not finished."""
    missing = set(range(config.samples)) - {row["sample"] for row in predictions.rows(item.key)}
    progress.skip(config.samples - len(missing))
    render = _render(benchmark, item)

    async def answer(model: Calls, stage: str, number: int) -> Completion:
        limit = config.max_prompt_tokens
        call = Call(stage, item.id, number, config.sampling, render, item.context, max_prompt_tokens=limit)
        return await model.complete(call)

    async def sample(number: int) -> None:
        answers = await all_settled(*(answer(model, stage, number) for stage, model in models.items()))
        row: Row = {"id": item.id, "set": item.set, "digest": digests[item.key], "sample": number}
        row |= await benchmark.score(item, [completion.text for completion in answers])
        if any(completion.thought for completion in answers):
            row["thoughts"] = [completion.thought for completion in answers]
            row["unfinished_thoughts"] = sum(completion.unfinished_thought for completion in answers)
        predictions.append(row)
        progress.step()

    await all_settled(*(sample(number) for number in sorted(missing)))


def _results(
    config: EvaluateConfig, benchmark: Benchmark, sets: Mapping[str, Mapping[str, str]], predictions: Journal
) -> dict[str, Any]:
    scores: dict[str, dict[str, Scores]] = {}
    unjudged = unread = odd_golds = unfinished = 0
    for name, digests in sets.items():
        for id in digests:
            rows = {row["sample"]: row for row in predictions.rows(key_of(name, id))}
            if len(rows) == config.samples:
                scores.setdefault(name, {})[id] = question_scores(rows.values(), benchmark.metrics)
                unfinished += sum(row.get("unfinished_thoughts", 0) for row in rows.values())
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
        "unfinished_thoughts": unfinished,
        "gold_in_every_text": odd_golds,
        **summarise(scores, benchmark.metrics, benchmark.groups),
        "by_question": {
            name: {id: {"digest": sets[name][id]} | score for id, score in of_set.items()}
            for name, of_set in scores.items()
        },
    }
