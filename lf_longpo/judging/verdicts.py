"""Finding the judge's own verdict in its reply.

The judge writes its analysis first and its verdict last, in double brackets. What it judges may hold double brackets
of its own, and an analysis may quote them; `own_verdict` keeps such quotes from being taken for the judge's word.
"""

import re

_RATING = re.compile(r"\[\[(\d+\.\d+|\d+)\]\]")
_VERDICT = re.compile(r"\[\[([^\[\]]*)\]\]")
# A verdict's line: nothing but marks around the brackets, or a label with a colon before them.
_MARKS = r"[^\w\[\]\"'“”‘’「」『』`]*"
_VERDICT_LINE = re.compile(rf"{_MARKS}(?:[\w ]{{1,40}}[:：]{_MARKS})?\[\[[^\[\]]*\]\]{_MARKS}")


def find_rating(text: str) -> float | None:
    """The last number in double brackets, whatever its size; None where there is none."""
    ratings = _RATING.findall(text)
    return float(ratings[-1]) if ratings else None


def find_verdict(text: str) -> str | None:
    """The last text in double brackets, lower-cased; None where there is none."""
    verdicts = _VERDICT.findall(text)
    return verdicts[-1].strip().lower() if verdicts else None


def rating_between(text: str, lowest: float, highest: float) -> float | None:
    """`find_rating`, but None for a rating outside [lowest, highest]."""
    rating = find_rating(text)
    return rating if rating is not None and lowest <= rating <= highest else None


def own_verdict(reply: str, material: str) -> str:
    """The part of a reply to look for the verdict in.

    Where the material that was judged holds double brackets, an analysis may quote them, and only a last line that is
    nothing but a verdict counts; elsewhere all of the reply does.
    """
    if "[[" not in material:
        return reply
    lines = reply.strip().splitlines()
    return lines[-1] if lines and _VERDICT_LINE.fullmatch(lines[-1].strip()) else ""
