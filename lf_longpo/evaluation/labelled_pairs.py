"""Labelled preferences: two responses to a question, and which of them is better.

Rows of several published data sets are read as they are:

- `context`, `query`, `chosen`, `rejected`: our own form
- LongReward-10k (huggingface.co/datasets/THUDM/LongReward-10k): `context`, `query`, `win_response`, `lose_response`
- LongRewardBench (huggingface.co/datasets/LCM-Lab/LongRewardBench, arXiv 2510.06915): `prompt_template` (messages with
  `role` and `content`), `question`, `chosen`, `rejected`, `subtask`
- RewardBench (huggingface.co/datasets/allenai/reward-bench, arXiv 2403.13787): `prompt`, `chosen`, `rejected`, `subset`
- scored responses of a LongReward run: `idx`, `query`, `answer`, `reward`; the best and the worst of each question
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from lf_longpo.config import EvaluateJudgeConfig
from lf_longpo.data.questions import Source, placed_questions
from lf_longpo.errors import UserError
from lf_longpo.evaluation.items import Item, set_names
from lf_longpo.files.faults import AT_ONCE, Faults, parsed

_CHOSEN, _REJECTED = ("chosen", "win_response"), ("rejected", "lose_response")
_QUERY = ("query", "question", "input")
_PROMPT = ("prompt", "prompt_template")
_ID = ("id", "idx", "_id")
_SUBSET = ("subset", "subtask")
_SCORED = {"idx", "answer", "scores"}


@dataclass(frozen=True, slots=True)
class LabelledPair(Item):
    """A question and two responses to it."""

    chosen: str = ""
    """The better one, by the label."""
    rejected: str = ""


class _Scored(NamedTuple):
    location: str
    id: str
    query: str
    answer: str
    reward: float


def read_pairs(config: EvaluateJudgeConfig, faults: Faults = AT_ONCE) -> Iterator[tuple[str, LabelledPair]]:
    """Streams the labelled pairs of all inputs, each with its location.

    Args:
        config: the evaluation's.
        faults: takes the rows that cannot be used.

    Raises:
        UserError: an input cannot be read, or scored responses have no contexts.
    """
    for stem, name in set_names(config.input).items():
        rows = Source(name, config.input_split).rows
        first = next((row for _, row in rows(faults)), None)
        if isinstance(first, dict) and first.keys() >= _SCORED and "chosen" not in first:
            yield from _of_scored(config, name, stem, parsed(rows(faults), _scored, faults), faults)
        else:
            yield from parsed(rows(faults), partial(_pair, config, stem), faults)


def _pair(config: EvaluateJudgeConfig, stem: str, row: Any, location: str) -> LabelledPair:
    if not isinstance(row, dict):
        raise UserError(f"{location}: must be an object with context, query, chosen and rejected; write one per row")
    chosen, rejected = (_text(row, names, location) for names in (_CHOSEN, _REJECTED))
    context, query = _context_and_query(row, location)
    if chosen == rejected:
        raise UserError(f"{location}: chosen and rejected are the same text; remove the row")
    if not context.strip() and config.embeds:
        raise UserError(
            f"{location}: the field context is empty or missing, and a chat model with mode: score checks responses "
            "against the context; add it, or set mode: compare"
        )
    id = next((row[name] for name in _ID if isinstance(row.get(name), str | int)), None)
    if id is None:
        id = hashlib.sha256(json.dumps([context, query, chosen, rejected]).encode()).hexdigest()[:16]
    subset = next((row[name] for name in _SUBSET if isinstance(row.get(name), str) and row[name]), stem)
    return LabelledPair(str(id), query, (), context, subset, (), chosen, rejected)


def _context_and_query(row: dict[str, Any], location: str) -> tuple[str, str]:
    """Where there is only a prompt, the context is what stands in it before the question."""
    context = row.get("context")
    if context is not None and not isinstance(context, str):
        raise UserError(f"{location}: the field context must be text, not {type(context).__name__}; join its passages")
    if context or not any(row.get(name) for name in _PROMPT):
        return context or "", _text(row, _QUERY, location)
    prompt = _prompt(row, location)
    query = _known(row, _QUERY) or prompt
    before = prompt.rstrip().removesuffix(query.strip()).rstrip()
    return ("" if query == prompt else before), query


def _prompt(row: dict[str, Any], location: str) -> str:
    messages = row.get("prompt") or row["prompt_template"]
    if isinstance(messages, str):
        return messages
    listed = messages if isinstance(messages, list) else [messages]
    contents = [message.get("content") for message in listed if isinstance(message, dict)]
    texts = [content for content in contents if isinstance(content, str)]
    if len(texts) != len(listed):
        raise UserError(f"{location}: the prompt must be text, or messages with role and content; fix the row")
    return "\n\n".join(texts)


def _known(row: dict[str, Any], names: Iterable[str]) -> str:
    return next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), "")


def _text(row: dict[str, Any], names: tuple[str, ...], location: str) -> str:
    if text := _known(row, names):
        return text
    name = next((name for name in names if name in row), None)
    if name:
        kind = "empty" if isinstance(row[name], str) or row[name] is None else f"not text ({type(row[name]).__name__})"
        raise UserError(f"{location}: the field {name} is {kind}; write it as text or remove the row")
    first, *others = names
    named = f"{first} (or {' or '.join(others)})" if others else first
    there = ", ".join(map(str, row)) or "none"
    raise UserError(f"{location}: the field {named} is missing; add it (the row has {there:.200})")


def _scored(row: Any, location: str) -> _Scored | None:
    if not isinstance(row, dict):
        raise UserError(f"{location}: must be an object with idx, query, answer and reward; write one per row")
    if "not_scored" in row:
        return None  # racing gave it up: neither the best nor the worst
    idx, query, answer = (_text(row, (name,), location) for name in ("idx", "query", "answer"))
    id, dash, _ = idx.rpartition("-")
    if not dash:
        raise UserError(f"{location}: the idx {idx!r} must have the form <question's id>-<number>; fix it")
    scores = row.get("scores")
    total = scores.get("total") if isinstance(scores, dict) else None
    reward = row.get("reward", total)
    if isinstance(reward, bool) or not isinstance(reward, int | float):
        raise UserError(f"{location}: the field reward must be a number; write the response's score")
    return _Scored(location, id, query, answer, float(reward))


def _of_scored(
    config: EvaluateJudgeConfig, name: str, stem: str, rows: Iterable[tuple[str, _Scored]], faults: Faults
) -> Iterator[tuple[str, LabelledPair]]:
    """The best and the worst response of each question; questions without a difference are skipped."""
    if config.contexts is None:
        raise UserError(
            f"contexts is missing: {name} holds scored responses without contexts; set contexts to the input of its run"
        )
    by_question: dict[str, list[_Scored]] = {}
    for _, row in rows:
        by_question.setdefault(row.id, []).append(row)
    pairs = {}
    for id, scored in by_question.items():
        best, worst = max(scored, key=lambda row: row.reward), min(scored, key=lambda row: row.reward)
        if best.reward > worst.reward and best.answer != worst.answer:
            pairs[id] = best, worst
    for _, question in placed_questions(Source(config.contexts, needs_answers=False), faults):
        if question.id in pairs:
            best, worst = pairs.pop(question.id)
            texts = best.answer, worst.answer
            yield best.location, LabelledPair(question.id, best.query, (), question.context, stem, (), *texts)
    for best, _ in pairs.values():
        faults.add(
            UserError(
                f"{best.location}: {config.contexts} has no question {best.id!r}; set contexts to the input of its run"
            )
        )
