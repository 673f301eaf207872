"""Rows in other trainers' forms: TRL's preference and unpaired preference, LLaMA-Factory's KTO."""

from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.export.responses import Answered
from lf_longpo.journal import Row
from lf_longpo.review import response_of, text_of

_ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "tool": "tool",
    "observation": "tool", "function_call": "assistant",
}  # fmt: skip
KTO_ENTRY = {"prompt": "prompt", "response": "completion", "kto_tag": "label"}
"""LLaMA-Factory's columns for rows of `kto_rows`."""


def preference_rows(rows: Iterable[Row], columns: Mapping[str, str]) -> Iterator[Row]:
    """TRL's preference form with an explicit prompt, conversational; what else a row has stays.

    Args:
        rows: pairs.
        columns: LLaMA-Factory's names of the columns prompt, query, system, history, chosen and rejected to the rows'.

    Raises:
        UserError: a message has a role that is not known.
    """
    taken = {*columns.values(), "prompt", "chosen", "rejected"}
    for row in rows:
        yield {
            "prompt": _prompt(row, columns),
            "chosen": _message("assistant", response_of(row[columns["chosen"]])),
            "rejected": _message("assistant", response_of(row[columns["rejected"]])),
            **{name: value for name, value in row.items() if name not in taken},
        }


def _prompt(row: Row, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    known = {ours: row.get(theirs) for ours, theirs in columns.items()}
    messages = _message("system", known["system"]) if known.get("system") else []
    for asked, told in known.get("history") or []:
        messages += [*_message("user", asked), *_message("assistant", told)]
    if isinstance(known["prompt"], list):
        return messages + [_translated(message) for message in known["prompt"]]
    # As LLaMA-Factory joins them.
    return messages + _message("user", "\n".join(filter(None, (known["prompt"], known.get("query")))))


def _translated(message: Any) -> dict[str, Any]:
    role = message.get("role", message.get("from")) if isinstance(message, dict) else None
    if role not in _ROLES:
        raise UserError(f"a message of the prompt has the role {role!r}; known are {', '.join(_ROLES)}")
    return {"role": _ROLES[role], "content": text_of(message)}


def kto_rows(questions: Iterable[Answered], threshold: float | None, conversational: bool) -> Iterator[Row]:
    """Unpaired preference: a row a response, desirable or not (KTO, arXiv 2402.01306).

    Args:
        questions: with their responses.
        threshold: the reward from which a response is desirable. Default: the middle between the lowest and the highest
            of its question; questions whose rewards are all equal say nothing then and are left out.
        conversational: messages, as TRL puts them into a chat template; else texts, which LLaMA-Factory reads.
    """
    for question in questions:
        # A text that was sampled several times is worth the mean of its rewards.
        rewards: dict[str, list[float]] = {}
        index = {response.text: response.index for response in reversed(question.responses)}
        for response in question.responses:
            if response.text.strip():
                rewards.setdefault(response.text, []).append(response.reward)
        worth = {text: fmean(its) for text, its in rewards.items()}
        if not worth or (threshold is None and min(worth.values()) == max(worth.values())):
            continue
        middle = (min(worth.values()) + max(worth.values())) / 2
        for text, reward in worth.items():
            yield {
                "prompt": _message("user", question.prompt) if conversational else question.prompt,
                "completion": _message("assistant", text) if conversational else text,
                "label": reward > middle if threshold is None else reward >= threshold,
                "id": question.id,
                "index": index[text],
                "reward": reward,
            }


def both_labels(rows: Iterable[Row]) -> Iterator[Row]:
    """Hands rows on.

    Raises:
        UserError: in the end, where all are desirable or none is, from which nothing can be learned.
    """
    labels = set()
    for row in rows:
        labels.add(row["label"])
        yield row
    if len(labels) < 2:
        kind = "no response" if not labels else "all responses are desirable" if True in labels else "none is desirable"
        raise UserError(f"--threshold: {kind}; KTO needs both, so choose another one")


def _message(role: str, text: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": text}]
