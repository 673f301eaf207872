"""Rows in other trainers' forms: TRL's preference and unpaired preference, LLaMA-Factory's KTO."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.export.responses import Answered
from lf_longpo.journal import Row
from lf_longpo.review import text_of

KTO_ENTRY = {"prompt": "prompt", "response": "completion", "kto_tag": "label"}
"""LLaMA-Factory's columns for rows of `kto_rows`."""


def preference_rows(rows: Iterable[Row], columns: Mapping[str, str]) -> Iterator[Row]:
    """TRL's preference form with an explicit prompt, conversational; what else a row has stays.

    Args:
        rows: pairs.
        columns: LLaMA-Factory's names of the columns prompt, query, chosen and rejected to the rows'.
    """
    taken = set(columns.values())
    for row in rows:
        prompt = "\n".join(text for name in ("prompt", "query") if (text := text_of(row.get(columns.get(name, "")))))
        yield {
            "prompt": _message("user", prompt),
            "chosen": _message("assistant", text_of(row[columns["chosen"]])),
            "rejected": _message("assistant", text_of(row[columns["rejected"]])),
            **{name: value for name, value in row.items() if name not in taken},
        }


def kto_rows(questions: Iterable[Answered], threshold: float | None, conversational: bool) -> Iterator[Row]:
    """Unpaired preference: a row a response, desirable or not (KTO, arXiv 2402.01306).

    Args:
        questions: with their responses.
        threshold: the reward from which a response is desirable. Default: the middle between the lowest and the highest
            of its question; questions whose rewards are all equal say nothing then and are left out.
        conversational: messages, as TRL puts them into a chat template; else texts, which LLaMA-Factory reads.
    """
    for question in questions:
        rewards = [response.reward for response in question.responses]
        if threshold is None and min(rewards) == max(rewards):
            continue
        least = (min(rewards) + max(rewards)) / 2 if threshold is None else threshold
        told = set()
        for response in question.responses:
            label = response.reward >= least if threshold is not None else response.reward > least
            if (response.text, label) in told or not response.text.strip():
                continue
            told.add((response.text, label))
            yield {
                "prompt": _message("user", question.prompt) if conversational else question.prompt,
                "completion": _message("assistant", response.text) if conversational else response.text,
                "label": label,
                "id": question.id,
                "index": response.index,
                "reward": response.reward,
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
