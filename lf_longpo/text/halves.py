"""Half characters: lone surrogates.

JSON and YAML can write them as escapes ("\\ud83d"). UTF-8 cannot encode them, so no file or request can hold them.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

from lf_longpo.errors import UserError

T = TypeVar("T")


def refuse_halves(row: T, location: str) -> T:
    """Returns a row if none of its texts holds half a character.

    Args:
        row: any JSON value.
        location: where the row is ("q.jsonl, line 7"), for the error.

    Raises:
        UserError: a text holds half a character; the message names the field and the half.
    """
    for name, value in row.items() if isinstance(row, dict) else [("row", row)]:
        if half := next(filter(None, map(_half_in, texts_in([name, value]))), None):
            raise UserError(
                f"{location}: the field {name} holds \\u{ord(half):04x}, half of a character (a lone surrogate); "
                "replace or remove it"
            )
    return row


def texts_in(value: Any) -> Iterator[str]:
    """All texts of a JSON value, including the names of fields."""
    pending = [value]
    while pending:  # no recursion: JSON may be nested deeply
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            pending += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            pending += value


def _half_in(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return text[error.start]
    return None
