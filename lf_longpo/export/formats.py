"""Rows in other trainers' forms: TRL's preference and unpaired preference, LLaMA-Factory's KTO."""

from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any, NamedTuple

from lf_longpo.errors import UserError
from lf_longpo.export.responses import Answered
from lf_longpo.faults import Faults, parsed
from lf_longpo.journal import Row

_ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "tool": "tool",
    "observation": "tool", "function_call": "assistant",
}  # fmt: skip
KTO_ENTRY = {"prompt": "prompt", "response": "completion", "kto_tag": "label"}
"""LLaMA-Factory's columns for rows of `kto_rows`."""


def preference_rows(
    placed: Iterable[tuple[str, Row]], columns: Mapping[str, str], faults: Faults
) -> Iterator[tuple[str, Row]]:
    """TRL's preference form with an explicit prompt, conversational; what else a row has stays.

    Args:
        placed: pairs, each after its place.
        columns: LLaMA-Factory's names of the columns prompt, query, system, history, chosen and rejected to the rows'.
        faults: takes the pairs without texts, and those with a message of an unknown role.
    """
    taken = {*columns.values(), "prompt", "chosen", "rejected"}

    def preference(row: Row, place: str) -> Row:
        pair = _Pair(row, place, columns)
        return {
            "prompt": pair.prompt(),
            "chosen": _message("assistant", pair.response("chosen")),
            "rejected": _message("assistant", pair.response("rejected")),
            **{name: value for name, value in row.items() if name not in taken},
        }

    return parsed(placed, preference, faults)


class _Pair(NamedTuple):
    """A pair of LLaMA-Factory's, whose texts are texts, messages or lists of messages."""

    row: Row
    place: str
    columns: Mapping[str, str]

    def response(self, side: str) -> str:
        """The text of a side; of several messages the last one."""
        value = self._value(side)
        return self._text(side, value[-1] if isinstance(value, list) and value else value)

    def prompt(self) -> list[dict[str, Any]]:
        """The messages before the response."""
        messages = _message("system", self._text("system", system)) if (system := self._value("system")) else []
        for asked, answered in self._history():
            messages += [*_message("user", asked), *_message("assistant", answered)]
        prompt = self._value("prompt")
        if isinstance(prompt, list) and prompt:
            return messages + [self._translated(message) for message in prompt]
        # As LLaMA-Factory joins them.
        filled = [column for column in ("prompt", "query") if self._value(column)] or ["prompt"]
        return messages + _message("user", "\n".join(self._text(column, self._value(column)) for column in filled))

    def _value(self, column: str) -> Any:
        return self.row.get(self.columns.get(column))

    def _history(self) -> list[list[str]]:
        turns = self._value("history") or []
        pairs = isinstance(turns, list) and all(isinstance(turn, list) and len(turn) == 2 for turn in turns)
        if not pairs or not all(isinstance(text, str) for turn in turns for text in turn):
            raise UserError(f"{self.place}: the field {self.columns['history']} must hold pairs of texts; fix it")
        return turns

    def _translated(self, message: Any) -> dict[str, Any]:
        role = message.get("role", message.get("from")) if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in _ROLES:
            raise UserError(
                f"{self.place}: a message of the prompt has the role {role!r:.60}; known are {', '.join(_ROLES)}"
            )
        return {"role": _ROLES[role], "content": self._text("prompt", message)}

    def _text(self, column: str, value: Any) -> str:
        text = value.get("content", value.get("value")) if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise UserError(
                f"{self.place}: the field {self.columns[column]} must be a text, or messages with texts, not "
                f"{value!r:.60}; fill it or remove the pair"
            )
        return text


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
