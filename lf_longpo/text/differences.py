"""Word-level differences of two texts, and making any text safe to display or to store."""

import re
import unicodedata
from difflib import SequenceMatcher
from typing import NamedTuple

# Words that are compared: the time grows with the square of their number.
_MOST_WORDS = 500
_WORD = re.compile(r"\s+|[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]")
# Unicode categories of characters that are not visible but can reverse, hide or erase the text around them: format and
# control characters, private use, surrogates.
_INVISIBLE = {"Cf", "Cc", "Co", "Cs"}
# Characters of these categories that lines, some scripts and emoji need.
_ALLOWED = "\n\t\u200c\u200d"


class Piece(NamedTuple):
    """A part of a text."""

    text: str
    own: bool
    """Whether the other text does not have this part."""


def differences(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, with the pieces marked that only one of them has. Only the first 500 words are compared."""
    words = [_WORD.findall(text) for text in (first, second)]
    compared = [listed[:_MOST_WORDS] for listed in words]
    sides: tuple[list[Piece], list[Piece]] = ([], [])
    for kind, *spans in SequenceMatcher(a=compared[0], b=compared[1], autojunk=False).get_opcodes():
        for side, listed, span in zip(sides, compared, (spans[:2], spans[2:]), strict=True):
            if text := "".join(listed[slice(*span)]):
                side.append(Piece(text, kind != "equal"))
    for side, listed in zip(sides, words, strict=True):
        if rest := "".join(listed[_MOST_WORDS:]):
            side.append(Piece(rest, False))
    return sides


def whole_letters(text: str) -> str:
    """A text that can be stored and sent: surrogate pairs become their character, lone surrogates become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def visible(text: str, limit: int) -> str:
    """A text for display: invisible characters become `⟨U+202E⟩`; at most `limit` characters are shown."""
    text = text.replace("\r\n", "\n")
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n⟨ {len(text) - 2 * half:,} characters not shown ⟩\n{text[-half:]}"
    return "".join(
        f"⟨U+{ord(letter):04X}⟩" if unicodedata.category(letter) in _INVISIBLE and letter not in _ALLOWED else letter
        for letter in text
    )
