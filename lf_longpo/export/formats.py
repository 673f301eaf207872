"""Rows in other trainers' forms: TRL's preference and unpaired preference, LLaMA-Factory's sharegpt pairs and KTO."""

import json
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any, NamedTuple

from lf_longpo.data.review import SIDES
from lf_longpo.errors import UserError
from lf_longpo.export.scored_responses import Answered
from lf_longpo.files.faults import Faults, parsed
from lf_longpo.files.journal import Row
from lf_longpo.plugin.row_shape import DEFAULT_TAGS, ROLE_TAGS, history_fault

# Roles of several conventions, in LLaMA-Factory's words and in TRL's.
_ROLES = {
    "system": "system", "user": "human", "human": "human", "assistant": "gpt", "gpt": "gpt", "tool": "observation",
    "observation": "observation", "function_call": "function_call",
}  # fmt: skip
_TRL_ROLES = {
    "system": "system", "human": "user", "gpt": "assistant", "observation": "tool", "function_call": "assistant",
}  # fmt: skip


class Turn(NamedTuple):
    """A message: its role in LLaMA-Factory's words (human, gpt, ...) and its text."""

    role: str
    text: str


KTO_ENTRY = {"prompt": "prompt", "response": "completion", "kto_tag": "label"}
"""LLaMA-Factory's columns for rows of `kto_rows`."""


def preference_rows(
    placed: Iterable[tuple[str, Row]], columns: Mapping[str, str], tags: Mapping[str, str], faults: Faults
) -> Iterator[tuple[str, Row]]:
    """TRL's preference form with an explicit prompt, conversational; what else a row has stays.

    Args:
        placed: pairs, each after its place.
        columns: LLaMA-Factory's names of the columns prompt, query, system, history, tools, chosen and rejected to the
            rows'.
        tags: LLaMA-Factory's names of tags to those of the rows' messages.
        faults: takes the pairs without texts, and those with a message of an unknown role.
    """

    def preference(row: Row, place: str) -> Row:
        prompt, sides, others = _turns(row, place, columns, tags)
        return {
            "prompt": [{"role": _TRL_ROLES[turn.role], "content": turn.text} for turn in prompt],
            **{name: _message("assistant", turn.text) for name, turn in sides.items()},
            **others,
        }

    return parsed(placed, preference, faults)


def sharegpt_rows(
    placed: Iterable[tuple[str, Row]], columns: Mapping[str, str], tags: Mapping[str, str], faults: Faults
) -> Iterator[tuple[str, Row]]:
    """LLaMA-Factory's sharegpt ranking form, which `longpo register` describes; what else a row has stays.

    Arguments as for `preference_rows`.
    """

    def shared(row: Row, place: str) -> Row:
        prompt, sides, others = _turns(row, place, columns, tags)
        if others.get("tools") is not None and not isinstance(others["tools"], str):
            others["tools"] = json.dumps(others["tools"], ensure_ascii=False)
        return {
            "conversations": [{"from": turn.role, "value": turn.text} for turn in prompt],
            **{name: {"from": turn.role, "value": turn.text} for name, turn in sides.items()},
            **others,
        }

    return parsed(placed, shared, faults)


def _turns(
    row: Row, place: str, columns: Mapping[str, str], tags: Mapping[str, str]
) -> tuple[list[Turn], dict[str, Turn], Row]:
    """Prompt, chosen and rejected response, and the other columns of a row, with `tools` under that name."""
    taken = {*columns.values(), "prompt", "conversations", *SIDES}
    try:
        prompt = _prompt(row, columns, tags)
        sides = {name: _response(columns[name], row[columns[name]], tags) for name in SIDES}
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    others = {name: value for name, value in row.items() if name not in taken}
    if "tools" in columns and row.get(columns["tools"]) is not None:
        others["tools"] = row[columns["tools"]]
    return prompt, sides, others


def _prompt(row: Row, columns: Mapping[str, str], tags: Mapping[str, str]) -> list[Turn]:
    known = {ours: row.get(theirs) for ours, theirs in columns.items()}
    turns = [Turn("system", _text(columns["system"], known["system"]))] if known.get("system") else []
    if fault := history_fault(row, columns.get("history")):
        raise UserError(f"{fault}; fix it or remove the pair")
    for asked, told in known.get("history") or []:
        turns += [Turn("human", asked), Turn("gpt", told)]
    if isinstance(known["prompt"], list) and known["prompt"]:
        messages = [_turn(columns["prompt"], message, tags) for message in known["prompt"]]
        # As LLaMA-Factory, which takes a system message for the column's text.
        return messages if messages[0].role == "system" else turns + messages
    filled = [name for name in ("prompt", "query") if known.get(name)] or ["prompt"]
    # As LLaMA-Factory joins them.
    return [*turns, Turn("human", "\n".join(_text(columns[name], known[name]) for name in filled))]


def _response(field: str, value: Any, tags: Mapping[str, str]) -> Turn:
    """A response; of several messages the last one."""
    if isinstance(value, list) and value:
        value = value[-1]
    return _turn(field, value, tags) if isinstance(value, dict) else Turn("gpt", _text(field, value))


def _turn(field: str, message: Any, tags: Mapping[str, str]) -> Turn:
    if not isinstance(message, dict):
        raise _no_text(field, message)
    role = message.get(tags["role_tag"], message.get("role", message.get("from")))
    roles = _ROLES | {tags[tag]: DEFAULT_TAGS[tag] for tag in ROLE_TAGS if tag in tags}
    if not isinstance(role, str) or role not in roles:
        raise UserError(f"a message of the field {field} has the role {role!r:.60}; known are {', '.join(roles)}")
    text = message.get(tags["content_tag"], message.get("content", message.get("value")))
    if not isinstance(text, str):
        raise _no_text(field, message)
    return Turn(roles[role], text)


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _no_text(field, value)
    return value


def _no_text(field: str, value: Any) -> UserError:
    calls = isinstance(value, dict) and value.get("tool_calls")
    return UserError(
        f"the field {field} must be a text, or messages with texts, not {value!r:.60}; fill it or remove the pair"
        + ("; tool calls are not converted, write them as text" if calls else "")
    )


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
