"""Reading a judge's replies: ratings, levels of support, statements.

The judge writes its analysis first and its verdict last, in double brackets. What it judges may hold double brackets
or tags of its own, and an analysis may quote them; `own_verdict` and `find_statements` keep such quotes from being
taken for the judge's word.
"""

import re

NO_INFORMATION = "No relevant information"

_RATING = re.compile(r"\[\[(\d+\.\d+|\d+)\]\]")
_LEVEL = re.compile(r"\[\[([ /a-zA-Z]+)\]\]")
_STATEMENT = re.compile(r"<statement>(.*?)</statement>", re.DOTALL)
_TAG = re.compile(r"</?statement>")
_WHOLE_LINE = re.compile(r"<statement>(.*)</statement>")
# A verdict's line: nothing but marks around the brackets, or a label with a colon before them.
_MARKS = r"[^\w\[\]\"'“”‘’「」『』`]*"
_VERDICT_LINE = re.compile(rf"{_MARKS}(?:[\w ]{{1,40}}[:：]{_MARKS})?\[\[[^\[\]]*\]\]{_MARKS}")

BEST_RATING = 10.0


def find_rating(text: str) -> float | None:
    """The last number in double brackets, whatever its size; None where there is none."""
    ratings = _RATING.findall(text)
    return float(ratings[-1]) if ratings else None


def find_support(text: str) -> float | None:
    """1, 0.5 or 0 from the last words in double brackets: fully, partially, or anything else; None without any."""
    levels = _LEVEL.findall(text)
    if not levels:
        return None
    level = levels[-1].lower()
    return 1 if "fully" in level else 0.5 if "partially" in level else 0


def rating_in_range(text: str) -> float | None:
    """`find_rating`, but None for a rating above 10."""
    rating = find_rating(text)
    return rating if rating is not None and rating <= BEST_RATING else None


def own_verdict(reply: str, material: str) -> str:
    """The part of a reply to look for the verdict in.

    Where the material that was judged holds double brackets, an analysis may quote them, and only a last line that is
    nothing but a verdict counts; elsewhere all of the reply does.
    """
    if "[[" not in material:
        return reply
    lines = reply.strip().splitlines()
    return lines[-1] if lines and _VERDICT_LINE.fullmatch(lines[-1].strip()) else ""


def find_statements(reply: str, material: str, begun: bool = False) -> list[str]:
    """The texts between <statement> and </statement>, without empty ones.

    Where the material that was split holds such tags itself, each line counts from its first tag to its last. Where
    the reply was begun with <statement> for the judge (one too small to keep the form), each line is a statement.
    """
    if begun:
        found = (_TAG.sub("", line) for line in reply.splitlines())
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
