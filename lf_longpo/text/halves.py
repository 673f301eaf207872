"""Halves of characters: lone surrogates.

JSON and YAML can spell them ("\\ud83d"); no UTF-8 text can hold them, so no file and no request can.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

from lf_longpo.errors import UserError

T = TypeVar("T")


def refuse_halves(row: T, place: str) -> T:
    """Gives a row back, or refuses it where one of its texts holds half a character.

    Raises:
        UserError: it names the field and the half.
    """
    for name, value in row.items() if isinstance(row, dict) else [("row", row)]:
        if half := next(filter(None, map(_half_in, texts_in([name, value]))), None):
            raise UserError(
                f"{place}: the field {name} holds \\u{ord(half):04x}, half of a character (a lone surrogate); replace "
                "or remove it"
            )
    return row


def texts_in(value: Any) -> Iterator[str]:
    """All texts of a JSON value, names of fields included."""
    left = [value]
    while left:  # no recursion: JSON may be nested deeply
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            left += value


def _half_in(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return text[error.start]
    return None
