"""Large data sets and runs for measurements: their files as the commands write them, without a model."""

import json
import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lf_longpo.config import GenerateConfig, LongMabGenerateConfig
from lf_longpo.config.yaml_text import dump_yaml
from lf_longpo.models.cache import CALLS, CallCache
from lf_longpo.models.tokenizer_file import load_tokenizer_file
from lf_longpo.text.chunking import chunk_spans

Row = dict[str, Any]
# With a space after each, about 3.9 characters: as many as a token of English text has.
_WORDS = "a in the and sun map road king stone was old sea of it water red".split()
_DIMENSIONS = ("helpfulness", "logicality", "faithfulness", "completeness")
_ROUNDS, _TOP_K, _SAMPLES = 30, 4, 10  # the defaults of the two methods
_VARIANTS = 1000  # of texts, of values and of judgements


def context_of(number: int, body: str) -> str:
    """A context: all have the same length and the same chunks."""
    return f"This is document {number:08}. {body}"


def body_of(tokens: int) -> str:
    """Sentences of a number of tokens together."""
    draw = random.Random(0)
    return " ".join(f"{' '.join(draw.choices(_WORDS, k=14))}." for _ in range(tokens // 15))


def pair_rows(number: int, context_tokens: int, best: float = 1.0) -> Iterator[Row]:
    """Pairs as in pairs.jsonl; the context is the beginning of the prompt."""
    draw, body = random.Random(1), body_of(context_tokens)
    for i in range(number):
        rejected = draw.random() * best
        yield {
            "id": f"q{i}",
            "input": f"What is number {i}?",
            "answer": "It",
            "prompt": f"{context_of(i, body)}\n\nWhat is number {i}?",
            "chosen": f"Number {i} is {' '.join(draw.choices(_WORDS, k=100))}.",
            "rejected": f"It is {' '.join(draw.choices(_WORDS, k=80))}.",
            "chosen_reward": best,
            "rejected_reward": rejected,
            "chosen_index": draw.randrange(5),
            "rejected_index": 5 + draw.randrange(5),
        }


def write_lines(path: Path, rows: Iterator[Row]) -> None:
    """Rows as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_run(folder: Path, method: str, questions: int, context_tokens: int) -> Path:
    """A finished run in `folder`/run whose questions all have a pair; its data set and questions are in `folder`.

    Args:
        folder: an existing folder.
        method: `longmab` or `longreward`.
        questions: their number.
        context_tokens: of each question.

    Returns:
        The run's folder.
    """
    run = folder / "run"
    run.mkdir()
    pairs = run / "pairs.jsonl"
    write_lines(pairs, pair_rows(questions, context_tokens, 1.0 if method == "longmab" else 10.0))
    os.link(pairs, folder / "large.jsonl")
    with pairs.open(encoding="utf-8") as rows:
        write_lines(folder / "questions.jsonl", (_question(json.loads(row)) for row in rows))
    server = {"model": "stub", "base_url": "http://127.0.0.1:1/v1", "api_key_env": "KEY"}
    settings = {
        "method": method,
        "input": str(folder / "questions.jsonl"),
        "output_dir": str(run),
        "dataset_dir": str(folder),
        "dataset_name": "large",
        "policy": server,
        "tokenizer": "smollm2-135m",
        "pairs": {"template": "smollm2", "cutoff_len": context_tokens},
        **({"judge": server} if method == "longreward" else {}),
    }
    config = GenerateConfig.model_validate(settings)
    (run / "config.yaml").write_text(dump_yaml(config.model_dump(mode="json")))
    entry = {"file_name": "large.jsonl", "ranking": True, "columns": {n: n for n in ("prompt", "chosen", "rejected")}}
    (folder / "dataset_info.json").write_text(json.dumps({"large": entry}))
    summary = {"method": method, "questions": questions, "stage": "pairs", "failed": 0, "unfinished": 0}
    summary |= {"interrupted": False, "pairs": questions, "unfit": 0, "data_set": "written", "calls": {}, "cost": 0.0}
    (run / "summary.json").write_text(json.dumps(summary | {"seconds": 1.0}))
    if isinstance(config, LongMabGenerateConfig):
        sizes = config.longmab.chunk_size, config.longmab.chunk_overlap
        text = context_of(0, body_of(64_000))  # realistic journals, also of shorter contexts
        _write_longmab(run, questions, len(chunk_spans(text, load_tokenizer_file(config.tokenizer), *sizes)))
    else:
        _write_longreward(run, questions)
    return run


def _question(pair: Row) -> Row:
    context = pair["prompt"].removesuffix(f"\n\n{pair['input']}")
    return {"id": pair["id"], "question": pair["input"], "answer": pair["answer"], "context": context}


def _write_longmab(run: Path, questions: int, chunks: int) -> None:
    draw = random.Random(2)
    text = [" ".join(draw.choices(_WORDS, k=60)) for _ in range(_VARIANTS)]
    # Parts of lines as JSON: writing 1.5 million different rollouts would take longer than what is measured.
    values = [json.dumps([draw.random() for _ in range(chunks)]) for _ in range(_VARIANTS)]
    arms = [json.dumps(sorted(draw.sample(range(chunks), _TOP_K))) for _ in range(_VARIANTS)]
    outputs = [json.dumps(f"Reasoning: {words}\nAnswer: it") for words in text]
    numbers = [(i, round) for i in range(questions) for round in range(_ROUNDS)]
    with (run / "probes.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(
            f'{{"id": "q{i}", "digest": "{i:016x}", "kept": true, "probe": "{text[i % _VARIANTS]}", '
            f'"initial_values": {values[i % _VARIANTS]}}}\n'
            for i in range(questions)
        )
    with (run / "rollouts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(
            f'{{"id": "q{i}", "round": {round}, "arms": {draw.choice(arms)}, "output": {draw.choice(outputs)}, '
            f'"reward": {draw.choice((0.0, 0.0, 0.4, 1.0))}, "values": {draw.choice(values)}, "truncated": false}}\n'
            for i, round in numbers
        )
    _write_calls(run, (("rollout", f"q{i}", round, draw.choice(text)) for i, round in numbers))


def _write_longreward(run: Path, questions: int) -> None:
    draw = random.Random(2)
    text = [" ".join(draw.choices(_WORDS, k=100)) for _ in range(_VARIANTS)]

    def judged() -> str:
        """The fields of a scored response after its answer, as JSON."""
        scores = {name: float(draw.randrange(11)) for name in _DIMENSIONS}
        details: Row = {name: {"score": scores[name], "analysis": draw.choice(text)} for name in _DIMENSIONS}
        statement = {"fact": draw.choice(text), "score": 0.5, "analysis": draw.choice(text)}
        passages = [{"c_idx": n, "content": draw.choice(text)} for n in range(3)]
        details["faithfulness"]["details"] = [statement | {"evidences": passages}] * 2
        total = sum(scores.values())
        return json.dumps({"scores": scores | {"total": total}, "reward": total / 4, "details": details})[1:]

    variants = [judged() for _ in range(_VARIANTS)]
    numbers = [(i, number) for i in range(questions) for number in range(_SAMPLES)]
    with (run / "scored_responses.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(
            f'{{"idx": "q{i}-{number}", "query": "What is number {i}?", "answer": "{draw.choice(text)}", '
            f"{draw.choice(variants)}\n"
            for i, number in numbers
        )
    _write_calls(run, (("sample", f"q{i}", number, draw.choice(text)) for i, number in numbers))


def _write_calls(run: Path, calls: Iterator[tuple[str, str, int, str]]) -> None:
    """The call cache, with many rows in one transaction."""
    cache = CallCache(run / CALLS)
    cache.open()
    cache.close()
    with sqlite3.connect(run / CALLS) as db:
        db.executemany(
            "INSERT INTO calls (stage, question, round, request, result, prompt_tokens, completion_tokens, cost,"
            " cached_tokens, seconds, truncated) VALUES (?, ?, ?, ?, ?, 6000, 90, 0.001, 0, 2.5, 0)",
            (
                (stage, id, index, f"{id}{index:032x}", json.dumps({"text": text, "finish_reason": "stop"}))
                for stage, id, index, text in calls
            ),
        )
