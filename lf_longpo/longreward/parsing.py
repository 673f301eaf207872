"""Reading what LongReward's judge replies: ratings, levels of support, statements, what it found in a context."""

import re

from lf_longpo.judging.verdicts import find_rating, find_verdict, plain_brackets, rating_between

__all__ = [
    "find_information",
    "find_rating",
    "find_statements",
    "find_support",
    "rating_in_range",
    "support_level",
    "support_levels",
]

NO_INFORMATION = "No relevant information"

_LEVEL = re.compile(r"\[\[([ /a-zA-Z]+)\]\]")
_STATEMENT = re.compile(r"<statement>(.*?)</statement>", re.DOTALL)
_TAG = re.compile(r"</?statement>")
_WHOLE_LINE = re.compile(r"<statement>(.*)</statement>")
BEST_RATING = 10.0
# The levels that judges write, behind a label at most. As in the published rule, N/A is no support.
_SUPPORT = {
    1.0: "full|fully|fully supported|full support|completely supported|supported|fully/partially|完全支持|支持",
    0.5: "partial|partially|partially supported|partial support|partly supported|部分支持",
    0.0: "no|none|no support|not supported|unsupported|n/a|不支持|没有支持|无支持|完全不支持",
}
_NUMBERED = re.compile(r"[\W_]*(?:(?:claim|statement)\W*|说法\W*)?(\d{1,4})[*_]*\s*[:.)：．、].*", re.IGNORECASE)
_LABEL = re.compile(r"[^\W\d][^:=]{0,39}[:=]\s*")


def find_support(text: str) -> float | None:
    """1, 0.5 or 0 from the last words in double brackets: fully, partially, or anything else; None without any.

    The rule of the published code, to which `Supported` and `Full support` are anything else; see `support_level`.
    """
    levels = _LEVEL.findall(text)
    if not levels:
        return None
    level = levels[-1].lower()
    return 1 if "fully" in level else 0.5 if "partially" in level else 0


def support_level(text: str) -> float | None:
    """1, 0.5 or 0 from the last double brackets of a reply; None where they hold no level, whatever stands before."""
    level = _LABEL.sub("", find_verdict(text) or "", count=1)
    return next((value for value, forms in _SUPPORT.items() if level in forms.split("|")), None)


def support_levels(text: str, count: int) -> dict[int, tuple[float, str]]:
    """The levels of several statements, from the lines that begin with a statement's number.

    Args:
        text: the reply.
        count: how many statements were asked about. They are numbered from 1.

    Returns:
        Level and line by number. A number is missing if no line or more than one line begins with it, or if its line
        does not have exactly one verdict.
    """
    lines: dict[int, list[str]] = {}
    for line in text.splitlines():
        if found := _NUMBERED.fullmatch(line.strip()):
            lines.setdefault(int(found[1]), []).append(line.strip())
    levels = {
        number: (level, line)
        for number, (line, *more) in lines.items()
        if 1 <= number <= count and not more and (level := support_level(line)) is not None
    }
    # A line with two verdicts can be about two statements.
    return {number: found for number, found in levels.items() if plain_brackets(found[1]).count("[[") == 1}


def rating_in_range(text: str) -> float | None:
    """`rating_between` 0 and 10."""
    return rating_between(text, 0.0, BEST_RATING)


def find_statements(reply: str, material: str, begun: bool = False) -> list[str]:
    """The texts between <statement> and </statement>, without empty ones.

    Where the material that was split holds such tags itself, each line counts from its first tag to its last. Where
    the reply was begun with <statement> for the judge (one too small to keep the form), each line is a statement.
    """
    if begun:
        found = [_TAG.sub("", line) for line in reply.splitlines()]
    else:
        found = (_WHOLE_LINE if _TAG.search(material) else _STATEMENT).findall(reply)
    return [text.strip() for text in found if text.strip()]


def find_information(reply: str, material: str) -> str | None:
    """What an extraction found: its text, or `NO_INFORMATION`; None where the reply is empty.

    Where the material itself speaks of "No relevant information", the reply must say nothing else to mean it.
    """
    text = reply.strip()
    if not text:
        return None
    if NO_INFORMATION in material:
        return NO_INFORMATION if re.sub(r"[^\w ]", "", text).strip() == NO_INFORMATION else text
    return NO_INFORMATION if NO_INFORMATION in text else text
