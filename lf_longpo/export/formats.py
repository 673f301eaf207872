"""Rows in other trainers' formats: TRL's preference and unpaired preference, LLaMA-Factory's sharegpt and KTO."""

import json
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any, NamedTuple

from lf_longpo.data.review import SIDES
from lf_longpo.errors import UserError
from lf_longpo.export.run_responses import AnsweredQuestion
from lf_longpo.files.faults import Faults, parsed
from lf_longpo.files.journal import Row
from lf_longpo.plugin.row_shape import DEFAULT_TAGS, ROLE_TAGS, history_fault

# The roles of several conventions, mapped to LLaMA-Factory's roles; and LLaMA-Factory's roles, mapped to TRL's.
_ROLES = {
    "system": "system", "user": "human", "human": "human", "assistant": "gpt", "gpt": "gpt", "tool": "observation",
    "observation": "observation", "function_call": "function_call",
}  # fmt: skip
_TRL_ROLES = {
    "system": "system", "human": "user", "gpt": "assistant", "observation": "tool", "function_call": "assistant",
}  # fmt: skip


class Turn(NamedTuple):
    """A message: its role by LLaMA-Factory's names (human, gpt, ...) and its text."""

    role: str
    text: str


KTO_ENTRY = {"prompt": "prompt", "response": "completion", "kto_tag": "label"}
"""LLaMA-Factory's columns for the rows of `kto_rows`."""


def preference_rows(
    placed: Iterable[tuple[str, Row]], columns: Mapping[str, str], tags: Mapping[str, str], faults: Faults
) -> Iterator[tuple[str, Row]]:
    """Pairs in TRL's conversational preference format with an explicit prompt; other columns of a row stay.

    Args:
        placed: pairs, each with its location.
        columns: the rows' names of LLaMA-Factory's columns (prompt, query, system, history, tools, chosen, rejected).
        tags: the messages' names of LLaMA-Factory's tags.
        faults: collects the errors of pairs without a text or with a message of an unknown role.

    Returns:
        Rows, each with its location.
    """

    def preference(row: Row, location: str) -> Row:
        prompt, sides, others = _turns(row, location, columns, tags)
        return {
            "prompt": [{"role": _TRL_ROLES[turn.role], "content": turn.text} for turn in prompt],
            **{name: _message("assistant", turn.text) for name, turn in sides.items()},
            **others,
        }

    return parsed(placed, preference, faults)


def sharegpt_rows(
    placed: Iterable[tuple[str, Row]], columns: Mapping[str, str], tags: Mapping[str, str], faults: Faults
) -> Iterator[tuple[str, Row]]:
    """Pairs in LLaMA-Factory's sharegpt ranking format, which `longpo register` reads; other columns of a row stay.

    The arguments are those of `preference_rows`.
    """

    def shared(row: Row, location: str) -> Row:
        prompt, sides, others = _turns(row, location, columns, tags)
        if others.get("tools") is not None and not isinstance(others["tools"], str):
            others["tools"] = json.dumps(others["tools"], ensure_ascii=False)
        return {
            "conversations": [{"from": turn.role, "value": turn.text} for turn in prompt],
            **{name: {"from": turn.role, "value": turn.text} for name, turn in sides.items()},
            **others,
        }

    return parsed(placed, shared, faults)


def _turns(
    row: Row, location: str, columns: Mapping[str, str], tags: Mapping[str, str]
) -> tuple[list[Turn], dict[str, Turn], Row]:
    """The prompt, both responses, and the other columns of a row; the column of the tools is named `tools`."""
    taken = {*columns.values(), "prompt", "conversations", *SIDES}
    try:
        prompt = _prompt(row, columns, tags)
        sides = {name: _response(columns[name], row[columns[name]], tags) for name in SIDES}
    except UserError as error:
        raise UserError(f"{location}: {error}") from None
    others = {name: value for name, value in row.items() if name not in taken}
    if "tools" in columns and row.get(columns["tools"]) is not None:
        others["tools"] = row[columns["tools"]]
    return prompt, sides, others


def _prompt(row: Row, columns: Mapping[str, str], tags: Mapping[str, str]) -> list[Turn]:
    values = {ours: row.get(theirs) for ours, theirs in columns.items()}
    turns = [Turn("system", _text(columns["system"], values["system"]))] if values.get("system") else []
    if fault := history_fault(row, columns.get("history")):
        raise UserError(f"{fault}; fix it or remove the pair")
    for question, answer in values.get("history") or []:
        turns += [Turn("human", question), Turn("gpt", answer)]
    if isinstance(values["prompt"], list) and values["prompt"]:
        messages = [_turn(columns["prompt"], message, tags) for message in values["prompt"]]
        # As in LLaMA-Factory, a system message replaces the system column.
        return messages if messages[0].role == "system" else turns + messages
    filled = [name for name in ("prompt", "query") if values.get(name)] or ["prompt"]
    # Joined as in LLaMA-Factory.
    return [*turns, Turn("human", "\n".join(_text(columns[name], values[name]) for name in filled))]


def _response(field: str, value: Any, tags: Mapping[str, str]) -> Turn:
    """A response; if it is a list of messages, the last one."""
    if isinstance(value, list) and value:
        value = value[-1]
    return _turn(field, value, tags) if isinstance(value, dict) else Turn("gpt", _text(field, value))


def _turn(field: str, message: Any, tags: Mapping[str, str]) -> Turn:
    if not isinstance(message, dict):
        raise _no_text(field, message)
    role = message.get(tags["role_tag"], message.get("role", message.get("from")))
    roles = _ROLES | {tags[tag]: DEFAULT_TAGS[tag] for tag in ROLE_TAGS if tag in tags}
    if not isinstance(role, str) or role not in roles:
        raise UserError(f"a message of the field {field} has the role {role!r:.60}; use one of {', '.join(roles)}")
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
        + ("; tool calls are not converted: write them as text" if calls else "")
    )


def kto_rows(
    questions: Iterable[AnsweredQuestion], threshold: float | None, conversational: bool, system: str | None = None
) -> Iterator[Row]:
    """Unpaired preferences: one row per response, desirable or not (KTO, arXiv 2402.01306).

    A text that was sampled several times gives one row, with the mean of its rewards.

    Args:
        questions: questions with their responses.
        threshold: the lowest reward of a desirable response. Default: responses with a reward above the middle between
            the lowest and the highest reward of their question are desirable; questions without a reward difference
            are skipped.
        conversational: whether prompt and completion are messages (TRL) or texts (LLaMA-Factory).
        system: the system prompt of the responses, if any: a message (TRL) or the column `system` (LLaMA-Factory).
    """
    before = _message("system", system) if system else []
    for question in questions:
        rewards: dict[str, list[float]] = {}
        index = {response.text: response.index for response in reversed(question.responses)}
        for response in question.responses:
            if response.text.strip():
                rewards.setdefault(response.text, []).append(response.reward)
        mean_rewards = {text: fmean(of_text) for text, of_text in rewards.items()}
        if not mean_rewards or (threshold is None and min(mean_rewards.values()) == max(mean_rewards.values())):
            continue
        middle = (min(mean_rewards.values()) + max(mean_rewards.values())) / 2
        for text, reward in mean_rewards.items():
            yield {
                "prompt": before + _message("user", question.prompt) if conversational else question.prompt,
                "completion": _message("assistant", text) if conversational else text,
                "label": reward > middle if threshold is None else reward >= threshold,
                "id": question.id,
                "index": index[text],
                "reward": reward,
                **({"system": system} if system and not conversational else {}),
            }


def both_labels(rows: Iterable[Row]) -> Iterator[Row]:
    """Passes rows on.

    Raises:
        UserError: after the last row, if all responses are desirable or none is: KTO cannot learn from them.
    """
    labels = set()
    for row in rows:
        labels.add(row["label"])
        yield row
    if len(labels) < 2:
        if not labels:
            raise UserError("there are no responses with different rewards to export; name another run")
        fault = "all responses are" if True in labels else "no response is"
        raise UserError(f"--threshold: {fault} desirable, but KTO needs both labels; choose another threshold")


def _message(role: str, text: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": text}]
