"""The format, columns and roles of a data set, derived from its first rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from lf_longpo.plugin.row_shape import DEFAULT_TAGS, Shape

Formatting = Literal["alpaca", "sharegpt"]
RESPONSES = {"chosen": "chosen", "rejected": "rejected"}
_MESSAGES = ("messages", "conversations")
# Columns next to prompt and response; a row may lack them.
_OPTIONAL = ("system", "history", "tools", "images", "videos", "audios")
# Names of roles in LLaMA-Factory's documentation and in hub data sets; the first name that occurs is taken.
_ROLES = {
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
    "observation_tag": ("observation", "tool", "tool_response"),
    "function_tag": ("function_call", "tool_call"),
}


def sample_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row with all columns of the rows, each with its first value that is not null."""
    sample: dict[str, Any] = {}
    for row in rows:
        for name, value in row.items():
            if sample.get(name) is None:
                sample[name] = value
    return sample


def guess_formatting(sample: Mapping[str, Any]) -> Formatting:
    """Messages or single texts; TRL's pairs, with lists of messages as responses, are judged by their prompt."""
    if "prompt" in sample and is_conversational(sample):
        return "alpaca"
    return "sharegpt" if set(_MESSAGES) & set(sample) else "alpaca"


def is_conversational(sample: Mapping[str, Any]) -> bool:
    """Whether responses are lists of messages, TRL's conversational form."""
    return any(isinstance(sample.get(name), list) for name in (*RESPONSES, "completion"))


def guess_columns(
    sample: Mapping[str, Any], formatting: str, ranking: bool, given: Mapping[str, str]
) -> dict[str, str]:
    """The data set's column for each of LLaMA-Factory's column names.

    All of the data set's columns are named: once an entry names a column, LLaMA-Factory has no defaults for the others.

    Args:
        sample: see `sample_of`.
        formatting: alpaca or sharegpt.
        ranking: whether rows hold a chosen and a rejected response.
        given: the columns that the user states.
    """
    if formatting == "sharegpt":
        guess = {"messages": "messages" if "messages" in sample else "conversations"}
    else:
        names = {"prompt": ("prompt", "instruction") if ranking else ("instruction", "prompt", "text")}
        if not ranking:
            names["response"] = ("output", "response", "completion")
        guess = {
            column: next((name for name in candidates if name in sample), "") for column, candidates in names.items()
        }
        if (given.get("prompt") or guess["prompt"]) == "instruction" and "input" in sample:
            guess["query"] = "input"
    if ranking:
        guess |= RESPONSES
    else:
        guess["kto_tag"] = next((name for name in ("kto_tag", "label") if isinstance(sample.get(name), bool)), "")
    optional = [name for name in _OPTIONAL if name in sample and not (name == "history" and formatting == "sharegpt")]
    guess |= {name: name for name in optional}
    return {column: name for column, name in guess.items() if name and name not in given.values()} | dict(given)


def guess_tags(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """The data set's name for each of LLaMA-Factory's tags.

    All tags are named: once an entry names a tag, LLaMA-Factory has no defaults for the others.

    Args:
        rows: the first rows.
        columns: the data set's column for each of LLaMA-Factory's column names.
        given: the tags that the user states.
    """
    messages = [message for row in rows for message in _messages(row, columns)]
    if messages and "role" in messages[0] and "from" not in messages[0]:
        tags = DEFAULT_TAGS | {"role_tag": "role", "user_tag": "user", "assistant_tag": "assistant"}
        tags["observation_tag"] = "tool"
    else:
        tags = dict(DEFAULT_TAGS)
    if messages and "content" in messages[0] and "value" not in messages[0]:
        tags["content_tag"] = "content"
    tags |= given
    roles = {role for message in messages if isinstance(role := message.get(tags["role_tag"]), str)}
    for tag, names in _ROLES.items():
        if tag not in given and tags[tag] not in roles:
            tags[tag] = next((name for name in names if name in roles), tags[tag])
    return tags


def _messages(row: Mapping[str, Any], columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    found = row.get(columns["messages"])
    responses = [row.get(columns[column]) for column in RESPONSES if column in columns]
    for message in [*(found if isinstance(found, list) else []), *responses]:
        if isinstance(message, dict):
            yield message


def unread_columns(names: Sequence[str], shape: Shape) -> list[str]:
    """Columns named like an optional column of LLaMA-Factory but missing in the entry: training ignores them."""
    optional = {name: name for name in _OPTIONAL if name != "history" or shape.formatting == "alpaca"}
    if shape.columns.get("prompt") == "instruction":
        optional["input"] = "query"
    read = shape.columns.values()
    return [
        name for name, column in optional.items() if name in names and name not in read and column not in shape.columns
    ]
