"""Word-level differences of two texts, and making any text safe to display or to store."""

from difflib import SequenceMatcher
from itertools import groupby
from typing import NamedTuple

import regex

from lf_longpo.text.graphemes import whole_end, whole_start, words

# Words that are compared: the time grows with the square of their number.
_MOST_WORDS = 500
LEAST_COMMON = 0.3
"""Differences are marked in texts that have this share of their letters and digits, or more, in common words."""
# Characters that are not visible but can reverse, hide or erase the text around them: format and control characters,
# private use, surrogates. Not among them: line breaks and tabs, joiners of scripts and emoji, direction marks (they
# have no effect on letters), Arabic signs that are visible, and the tags in the flags of England, Scotland and Wales.
_INVISIBLE = regex.compile(
    r"(?V1)(?<=\U0001f3f4)[\U000e0062-\U000e0077]{5}\U000e007f(*SKIP)(*FAIL)|"
    r"[[\p{Cf}\p{Cc}\p{Co}\p{Cs}]--[\n\t\u200c-\u200f\u061c\p{Prepended_Concatenation_Mark}]]"
)


class Piece(NamedTuple):
    """A part of a text."""

    text: str
    own: bool
    """Whether the other text does not have this part."""


def differences(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, with the pieces marked that only one of them has.

    Only the first 500 words are compared. Nothing is marked in texts that have less than `LEAST_COMMON` in common.
    """
    compared, rests = zip(*(words(text, _MOST_WORDS) for text in (first, second)), strict=True)
    changes = _changes(*compared)
    same = sum(_letters(word) for equal, span, _ in changes if equal for word in compared[0][slice(*span)])
    every = sum(_letters(word) for side in compared for word in side)
    marked = 2 * same >= LEAST_COMMON * every
    sides: tuple[list[Piece], list[Piece]] = ([], [])
    for number, side in enumerate(sides):
        texts = [(not equal and marked, "".join(compared[number][slice(*spans[number])])) for equal, *spans in changes]
        texts.append((False, rests[number]))
        for own, group in groupby((text for text in texts if text[1]), lambda text: text[0]):
            side.append(Piece("".join(text for _, text in group), own))
    return sides


def unmarked_note(sides: tuple[list[Piece], list[Piece]]) -> str:
    """Why no differences are marked in two texts; empty if some are."""
    if any(piece.own for side in sides for piece in side):
        return ""
    return (
        f"No differences are marked: the first {_MOST_WORDS} words of the responses are equal, or have less than "
        f"{LEAST_COMMON:.0%} of their letters in common."
    )


_Span = tuple[int, int]


def _changes(first: list[str], second: list[str]) -> list[tuple[bool, _Span, _Span]]:
    """The spans of words that are equal in both lists, and those between. A change includes spaces and punctuation
    marks between two changes."""
    found: list[tuple[bool, _Span, _Span]] = []
    for kind, *edges in SequenceMatcher(a=first, b=second, autojunk=False).get_opcodes():
        spans = (edges[0], edges[1]), (edges[2], edges[3])
        equal = kind == "equal" and not (found and edges[1] < len(first) and _no_letters(first[slice(*spans[0])]))
        if found and found[-1][0] == equal:
            spans = (found[-1][1][0], spans[0][1]), (found[-1][2][0], spans[1][1])
            found.pop()
        found.append((equal, *spans))
    return found


def _letters(word: str) -> int:
    """The number of letters and digits."""
    return sum(map(str.isalnum, word))


def _no_letters(listed: list[str]) -> bool:
    return not any(map(_letters, listed))


def whole_letters(text: str) -> str:
    """A text that can be stored and sent: surrogate pairs become their character, lone surrogates become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def visible(text: str, limit: int) -> str:
    """A text for display: invisible characters become `⟨U+202E⟩`; at most `limit` characters are shown."""
    text = text.replace("\r\n", "\n")
    if len(text) > limit:
        begin, end = whole_start(text, limit // 2), whole_end(text, len(text) - limit // 2)
        text = f"{text[:begin]}\n⟨ {end - begin:,} characters not shown ⟩\n{text[end:]}"
    shown: str = _INVISIBLE.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)
    return shown
