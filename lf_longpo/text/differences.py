"""What two texts do not have in common, word by word; and showing any text as nothing but text."""

import re
import unicodedata
from difflib import SequenceMatcher
from typing import NamedTuple

# Comparing takes time that grows with the square of the words.
_MOST_WORDS = 500
_WORD = re.compile(r"\s+|[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]")
# Format (Cf) and control (Cc) characters turn text around, hide it or erase what stands before them.
_UNSEEN = {"Cf", "Cc", "Co", "Cs"}
# Those that lines, some scripts and emoji need.
_SEEN = "\n\t\u200c\u200d"


class Piece(NamedTuple):
    """A part of a text, and whether only this text has it."""

    text: str
    own: bool


def differences(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, with what the other one lacks marked; of long ones the first 500 words count."""
    words = [_WORD.findall(text) for text in (first, second)]
    compared = [its[:_MOST_WORDS] for its in words]
    sides: tuple[list[Piece], list[Piece]] = ([], [])
    for kind, *spans in SequenceMatcher(None, *compared, autojunk=False).get_opcodes():
        for side, its, span in zip(sides, compared, (spans[:2], spans[2:]), strict=True):
            if text := "".join(its[slice(*span)]):
                side.append(Piece(text, kind != "equal"))
    for side, its in zip(sides, words, strict=True):
        if rest := "".join(its[_MOST_WORDS:]):
            side.append(Piece(rest, False))
    return sides


def whole_letters(text: str) -> str:
    """A text that can be stored and sent: lone surrogates (halves of a letter) become U+FFFD, two halves one letter."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def visible(text: str, limit: int) -> str:
    """A text whose unseen characters are named (`⟨U+202E⟩`), and without its middle beyond `limit` characters."""
    text = text.replace("\r\n", "\n")
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n⟨ {len(text) - 2 * half:,} characters left out here ⟩\n{text[-half:]}"
    return "".join(
        f"⟨U+{ord(letter):04X}⟩" if unicodedata.category(letter) in _UNSEEN and letter not in _SEEN else letter
        for letter in text
    )
