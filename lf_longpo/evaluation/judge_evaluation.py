"""`longpo evaluate judge`: a judge decides on labelled pairs, and its decisions are compared with the labels.

A finished pair is a row of predictions.jsonl; the finished calls of other pairs are in the call cache.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from lf_longpo.aio import all_settled
from lf_longpo.config import ChatConfig, EmbedderConfig, EvaluateJudgeConfig
from lf_longpo.data.questions import refuse_repeated_ids
from lf_longpo.engine.progress import Progress
from lf_longpo.engine.session import Session
from lf_longpo.errors import UserError
from lf_longpo.evaluation.items import key_of, key_of_row
from lf_longpo.evaluation.judge_decisions import Decider
from lf_longpo.evaluation.judge_metrics import METRICS, STABLE, by_length, length_controlled, pair_scores
from lf_longpo.evaluation.labelled_pairs import LabelledPair, read_pairs
from lf_longpo.evaluation.results import FIELDS, PREDICTIONS, RESULTS, summarise
from lf_longpo.files.faults import Faults
from lf_longpo.files.journal import Journal, Row, read_rows
from lf_longpo.files.run_dir import refuse_changed_questions
from lf_longpo.models.adapters import fingerprint
from lf_longpo.models.tokenizers import load_counting_tokenizer
from lf_longpo.models.usage import Expected, Usage, expected
from lf_longpo.text.chunking import count_tokens

JUDGE = "judge"
# The fields of every row in addition to its metrics.
_FIELDS = (*FIELDS, "choices", "context_tokens", "response_tokens")
# Calls that a pair needs at about the same time, with LongReward's dimensions.
_CALLS_A_PAIR = 20


async def evaluate_judge(config: EvaluateJudgeConfig, decider: Decider) -> tuple[dict[str, Any], int]:
    """Has the judge decide on all pairs, or resumes where an earlier start stopped.

    Returns:
        The results (also written to `output_dir`/results.json where no pair is unfinished) and the exit code.

    Raises:
        UserError: input, settings or a model cannot work.
    """
    output_dir = config.output_dir
    metrics = _metrics(config, decider)
    async with Session(config, summary=RESULTS) as session:
        session.check_settings()
        digests, sets = _check(config, decider)
        refuse_changed_questions(digests, output_dir / PREDICTIONS, key_of_row)
        fields = (*_FIELDS, *metrics)
        finished = {key_of_row(row) for row in read_rows(output_dir / PREDICTIONS, fields)}
        needed: list[ChatConfig | EmbedderConfig] = []
        if not set(digests) <= finished:
            needed = [config.judge, *([config.embedder] if config.embeds else [])]
        await session.check_models(*needed)
        tokenizer = load_counting_tokenizer(config.tokenizer, config.judge, JUDGE)
        judge = session.chat(config.judge, tokenizer)
        embedder = session.embedder(config.embedder) if config.embeds else None
        in_flight = config.judge.questions_at_once(_CALLS_A_PAIR)
        decider.equip(judge, embedder, tokenizer, in_flight)
        await session.start(*needed)
        session.open()
        progress = Progress(JUDGE, len(digests), len(digests), session.ledger, name="pairs")
        with Journal(output_dir / PREDICTIONS, fields, key_of_row) as predictions:
            count = partial(count_tokens, tokenizer=tokenizer)
            work = partial(_work, config, decider, metrics, count, digests, predictions, progress)
            progress.note(f"{len(digests)} pairs of {', '.join(sets)} -> {output_dir / PREDICTIONS}")

            def decided() -> set[str]:
                return {key for key in digests if key in predictions}

            pairs = (pair for _, pair in read_pairs(config))
            tally = await session.run(pairs, len(digests), work, in_flight, progress, decided)
            results = _results(config, metrics, sets, predictions) | tally.counts() | session.totals()
        results["per_decision"] = _per_decision(results)
        results["by_question"] = results.pop("by_question")  # after what people read
        if not tally.unfinished:
            session.write_summary(results)
        exit_code = tally.exit_code(results["questions"], config.max_failure_rate)
        too_many = results["unjudged"] > config.max_failure_rate * results["decisions"]
        return results, exit_code or int(too_many)


def estimate_judge(config: EvaluateJudgeConfig, decider: Decider) -> list[Expected]:
    """What a new evaluation is expected to take, stage by stage, from its real input; makes no calls.

    Raises:
        UserError: input or settings cannot work.
    """
    _check(config, decider)
    tokenizer = load_counting_tokenizer(config.tokenizer, config.judge, JUDGE)
    stages: dict[str, Usage] = {}
    for _, pair in read_pairs(config):
        for stage, usage in decider.usage(pair, tokenizer).items():
            stages[stage] = stages.get(stage, Usage()) + usage.times(config.runs)
    price = config.judge.price
    return [
        expected(stage, usage, config.embedder.price if stage == "embed" else price) for stage, usage in stages.items()
    ]


def _metrics(config: EvaluateJudgeConfig, decider: Decider) -> list[str]:
    return [*METRICS, *decider.extra, *([STABLE] if config.runs > 1 else [])]


def _check(config: EvaluateJudgeConfig, decider: Decider) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Reads all pairs once.

    Returns:
        Digests of the pairs and of all that determines their requests, by key; digests of the pairs alone, by id, by
        set.
    """
    asked = (*decider.texts, fingerprint(config.judge.adapter))
    digests: dict[str, str] = {}
    sets: dict[str, dict[str, str]] = {}
    with Faults() as faults:
        for _, pair in refuse_repeated_ids(read_pairs(config, faults), faults):
            digests[pair.key] = pair.digest(pair.chosen, pair.rejected, *asked)
            sets.setdefault(pair.set, {})[pair.id] = pair.digest(pair.chosen, pair.rejected)
    if not digests:
        raise UserError(f"{config.input} holds no labelled pairs; name another file")
    return digests, sets


async def _work(
    config: EvaluateJudgeConfig,
    decider: Decider,
    metrics: list[str],
    count: partial[int],
    digests: Mapping[str, str],
    predictions: Journal,
    progress: Progress,
    pair: LabelledPair,
) -> None:
    """All decisions on one pair, if it is not finished."""
    if pair.key in predictions:
        progress.skip(1)
        return
    decisions = await all_settled(*(decider.decide(pair, run) for run in range(config.runs)))
    lengths = count(pair.chosen), count(pair.rejected)
    row: Row = {"id": pair.id, "set": pair.set, "digest": digests[pair.key], "sample": 0}
    row |= pair_scores(decisions, lengths, metrics)
    row |= {"choices": [decision.choice for decision in decisions], "context_tokens": count(pair.context)}
    row |= {"response_tokens": lengths, "details": [decision.details for decision in decisions]}
    predictions.append(row)
    progress.step()


def _results(
    config: EvaluateJudgeConfig, metrics: list[str], sets: Mapping[str, Mapping[str, str]], predictions: Journal
) -> dict[str, Any]:
    rows = {
        name: {id: row for id in digests for row in predictions.rows(key_of(name, id))[:1]}
        for name, digests in sets.items()
    }
    scores = {
        name: {id: {metric: row[metric] for metric in metrics} for id, row in of_set.items()}
        for name, of_set in rows.items()
        if of_set
    }
    all_rows = [row for of_set in rows.values() for row in of_set.values()]
    choices = [choice for row in all_rows for choice in row["choices"]]
    return {
        "benchmark": JUDGE,
        "model": config.judge.model,
        "adapter": config.judge.adapter,
        "judge": None,
        "mode": config.mode,
        "runs": config.runs,
        "input": config.input,
        "metrics": metrics,
        "decisions": len(choices),
        "unjudged": choices.count(None),
        **summarise(scores, metrics, {}),
        "length_controlled": length_controlled(all_rows),
        "lengths": by_length(all_rows, metrics),
        "by_question": {
            name: {id: {"digest": sets[name][id]} | score for id, score in of_set.items()}
            for name, of_set in scores.items()
        },
    }


def _per_decision(results: Mapping[str, Any]) -> dict[str, float] | None:
    """Calls, tokens and cost of a decision, over all starts; None without decisions."""
    number = results["decisions"]
    if not number:
        return None
    stages = results["calls"].values()
    names = ("calls", "prompt_tokens", "completion_tokens")
    return {name: sum(stage[name] for stage in stages) / number for name in names} | {"cost": results["cost"] / number}
