"""Grapheme clusters: what a reader sees as one character, such as a letter with its accents or an emoji that consists
of several code points (Unicode Standard Annex 29)."""

import regex

# Scripts without spaces between words. Each of their clusters counts as a word.
_UNSPACED = r"\p{Ideographic}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_CLUSTER = regex.compile(r"\X")
_WORD = regex.compile(rf"(?:(?=\s)\X)+|(?:(?=\w)(?![{_UNSPACED}])\X)+|\X")
# The number of code points before a position in which the start of its cluster is looked for.
_REACH = 256


def words(text: str, most: int) -> tuple[list[str], str]:
    """The first words of a text, and its rest. Spaces and punctuation marks are words of their own.

    Args:
        text: the text.
        most: the largest number of words.
    """
    found: list[str] = []
    end = 0
    for match in _WORD.finditer(text):
        if len(found) == most:
            break
        found.append(match[0])
        end = match.end()
    return found, text[end:]


def whole_start(text: str, position: int) -> int:
    """The last position that is not after `position` and not within a cluster."""
    return _edges(text, position)[0]


def whole_end(text: str, position: int) -> int:
    """The first position that is not before `position` and not within a cluster."""
    return _edges(text, position)[1]


def _edges(text: str, position: int) -> tuple[int, int]:
    """The start and the end of the cluster around a position; the position twice if it is between two clusters."""
    if not 0 < position < len(text) or (text[position - 1].isascii() and text[position].isascii()):
        return position, position
    begin = max(text.rfind(" ", 0, position), text.rfind("\n", 0, position), position - _REACH, 0)
    for match in _CLUSTER.finditer(text, begin):
        if match.end() == position:
            break
        if match.end() > position:
            return match.start(), match.end()
    return position, position
