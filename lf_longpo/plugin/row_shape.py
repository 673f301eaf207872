"""What LLaMA-Factory reads from the rows of a data set with a given entry, and why it cannot use a row.

Follows `llamafactory.data.parser.DatasetAttr` and `llamafactory.data.converter` of LLaMA-Factory 0.9.5.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

COLUMNS = (
    "prompt", "query", "response", "history", "messages", "system", "tools", "images", "videos", "audios", "chosen",
    "rejected", "kto_tag",
)  # fmt: skip
"""LLaMA-Factory's column names."""
DEFAULT_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
DEFAULT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
ROLE_TAGS = tuple(tag for tag in DEFAULT_TAGS if tag not in ("role_tag", "content_tag"))
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


class Shape(NamedTuple):
    """An entry as LLaMA-Factory reads it.

    Attributes:
        formatting: alpaca, sharegpt or openai.
        ranking: whether rows hold a chosen and a rejected response.
        columns: the data set's column for each of LLaMA-Factory's column names that is read.
        tags: the data set's name for each of LLaMA-Factory's tags that is read.
    """

    formatting: str
    ranking: bool
    columns: Mapping[str, str]
    tags: Mapping[str, str]


def shape_of(entry: Mapping[str, Any]) -> Shape:
    """Reads an entry. Once it names a column (a tag), LLaMA-Factory has no defaults for the other columns (tags)."""

    def named(section: str, defaults: Mapping[str, str]) -> dict[str, str]:
        return {column: name for column, name in (entry.get(section, defaults) or {}).items() if name}

    return Shape(
        entry.get("formatting", "alpaca"),
        bool(entry.get("ranking", False)),
        named("columns", DEFAULT_COLUMNS),
        named("tags", DEFAULT_TAGS),
    )


def type_fault(row: Mapping[str, Any], shape: Shape, answered: bool = True) -> str | None:
    """Describes the first value of a row whose type LLaMA-Factory fails on or drops; None if there is none.

    Args:
        row: with the data set's columns.
        shape: of the data set.
        answered: whether responses are read; pretraining and PPO do not read them.
    """
    openai = shape.formatting == "openai"
    for column in ("prompt", "query", "system", *(() if openai else ("tools",))):
        if (fault := _not_text(row, shape.columns.get(column), null=True)) is not None:
            return fault
    if shape.formatting == "alpaca":
        return history_fault(row, shape.columns.get("history")) or (_response_fault(row, shape) if answered else None)
    name = shape.columns.get("messages", "")
    messages = row.get(name)
    if not isinstance(messages, list):
        return f"{name!r} is {kind_of(messages)}; LLaMA-Factory reads a list of messages there"
    for number, message in enumerate(messages, 1):
        if fault := _message_fault(message, shape):
            return f"message {number} of {name!r} {fault}"
    for column in ("chosen", "rejected") if shape.ranking else ():
        name = shape.columns.get(column, column)
        if fault := _message_fault(row.get(name), shape):
            return f"{name!r} {fault}"
    return None


def drop_reason(row: Mapping[str, Any], shape: Shape, stage: str) -> str:
    """Why LLaMA-Factory drops a row on which it does not fail.

    Args:
        row: with the data set's columns.
        shape: of the data set.
        stage: of the data: rm, sft or kto.
    """
    tag = shape.columns.get("kto_tag")
    if stage == "kto" and not (tag and isinstance(row.get(tag), bool)):
        return (
            f"{tag!r} is {kind_of(row.get(tag))}, not true or false"
            if tag
            else "its entry names no column kto_tag; add it under columns"
        )
    if stage == "sft" and tag and isinstance(row.get(tag), bool):
        return f"its entry names the column {tag!r} as kto_tag, which only the stage kto reads"
    return type_fault(row, shape) or _order_fault(row, shape) or "it does not have the turns that the stage needs"


def history_fault(row: Mapping[str, Any], name: str | None) -> str | None:
    """What is wrong with the earlier turns of a row; None if nothing is."""
    history = row.get(name) if name else None
    if not history:
        return None
    pairs = isinstance(history, list) and all(isinstance(turn, list) and len(turn) == 2 for turn in history)
    if pairs and all(isinstance(text, str) for turn in history for text in turn):
        return None
    return f"{name!r} must be a list of pairs of texts, [question, answer]"


def kind_of(value: Any) -> str:
    """The JSON type of a value, in words."""
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


def _not_text(row: Mapping[str, Any], name: str | None, null: bool = False) -> str | None:
    value = row.get(name) if name else ""
    if isinstance(value, str) or (null and value is None):
        return None
    return f"{name!r} is {kind_of(value)}; LLaMA-Factory reads text there"


def _response_fault(row: Mapping[str, Any], shape: Shape) -> str | None:
    names = [shape.columns.get(column) for column in (("chosen", "rejected") if shape.ranking else ("response",))]
    return next((fault for name in names if (fault := _not_text(row, name)) is not None), None)


def _message_fault(message: Any, shape: Shape) -> str | None:
    role, content = (shape.tags.get(tag, "") for tag in ("role_tag", "content_tag"))
    if not isinstance(message, dict):
        return f"is {kind_of(message)}; LLaMA-Factory reads one object with {role!r} and {content!r} there"
    if role not in message or content not in message:
        return (
            f"has the keys {', '.join(message)}, not {role!r} and {content!r}; name them with role_tag and content_tag"
        )
    if not isinstance(message[role], str):
        return f"has {kind_of(message[role])} as {role!r}; LLaMA-Factory reads a role there"
    if shape.formatting == "openai" and message[content] is None:  # a message with tool calls
        return None
    if not isinstance(message[content], str):
        return f"has {kind_of(message[content])} as {content!r}; LLaMA-Factory reads text there"
    return None


def _order_fault(row: Mapping[str, Any], shape: Shape) -> str | None:
    """What is wrong with the order of messages; LLaMA-Factory requires question and answer in turn."""
    if shape.formatting == "alpaca":
        return None
    role_tag = shape.tags["role_tag"]
    roles = [message[role_tag] for message in row[shape.columns["messages"]]]
    start = int(bool(roles) and roles[0] == shape.tags.get("system_tag"))
    if len(roles) == start:
        return "it has no messages"
    sides = [
        [shape.tags[tag] for tag in tags if tag in shape.tags]
        for tags in (("user_tag", "observation_tag"), ("assistant_tag", "function_tag"))
    ]
    # In the openai format, consecutive results of several tools are one turn: only unknown roles are found here.
    known = [sides[0] + sides[1]] * 2 if shape.formatting == "openai" else sides
    for number, role in enumerate(roles[start:]):
        if role not in known[number % 2]:
            return f"message {start + number + 1} has the role {role!r}, not {' or '.join(known[number % 2])}"
    if shape.formatting == "openai":
        return None
    if (len(roles) - start) % 2 != int(shape.ranking):
        wanted = "a question" if shape.ranking else "an answer"
        return f"its {len(roles) - start} messages do not end with {wanted}"
    for column in ("chosen", "rejected") if shape.ranking else ():
        if (role := row[shape.columns[column]][role_tag]) not in sides[1]:
            return f"{shape.columns[column]!r} has the role {role!r}, not {' or '.join(sides[1])}"
    return None
