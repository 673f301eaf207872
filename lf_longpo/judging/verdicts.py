"""Finds the judge's own verdict in its reply.

The judge writes its analysis first and its verdict last, in double brackets. The judged material may contain double
brackets, too, and an analysis may quote them. `own_verdict` separates such quotes from the judge's verdict.

`find_rating` is the rule of LongReward's published code (arXiv 2410.21252). Judges also write `[[8/10]]`,
`[[Rating: 8]]` or `［［８分］］`; `rating_between` reads these forms. Only the last brackets count: if they
hold anything else, there is no rating, and an earlier number is not used instead.
"""

import re
import unicodedata

_PUBLISHED_RATING = re.compile(r"\[\[(\d+\.\d+|\d+)\]\]")
_BRACKETS = re.compile(r"\[\[([^\[\]]*)\]\]")
# Brackets, and the rest of a fraction after them: `[[8]]/10`.
_WRITTEN_RATING = re.compile(r"\[\[([^\[\]]*)\]\](\s*(?:/|out of)\s*\d+)?")
# A label, a number, the denominator of a fraction, a unit.
_RATING = re.compile(
    r"(?:(?!scale|max|min|range|满分|总分)[^\W\d][^\d:=]{0,39}[:=]\s*|(?:rating|score|评分|得分|分数)\s*)?"
    r"(\d+(?:\.\d+)?)\s*(?:(?:/|out of)\s*(\d+))?\s*(?:分|points?)?",
    re.IGNORECASE,
)
# A rating line: only punctuation around the brackets, a label with a colon before them, a fraction after them.
_MARKS = r"[^\w\[\]\"'“”‘’「」『』`]*"
_RATING_LINE = re.compile(
    rf"{_MARKS}(?:[\w ]{{1,40}}[:：]{_MARKS})?\[\[[^\[\]]*\]\](?:\s*(?:/|out of)\s*\d+)?\s*分?{_MARKS}"
)
_OTHER_BRACKETS = str.maketrans(
    {"【": "[", "】": "]", "〔": "[", "〕": "]", "⟦": "[[", "⟧": "]]", "〚": "[[", "〛": "]]"}
)
_ESCAPED = re.compile(r"\\([\[\]])|(?<=\[)\s+(?=\[)|(?<=\])\s+(?=\])")
_EMPHASIS = re.compile(r"[*_`\"“”]")


def find_rating(text: str) -> float | None:
    """The last number in double brackets, of any size; None if there is none (the published rule)."""
    ratings = _PUBLISHED_RATING.findall(text)
    return float(ratings[-1]) if ratings else None


def find_verdict(text: str) -> str | None:
    """The last text in double brackets, in lower case and without emphasis; None if there is none."""
    verdicts = _BRACKETS.findall(plain_brackets(text))
    return _EMPHASIS.sub("", verdicts[-1]).strip(" .。").lower() if verdicts else None


def rating_between(text: str, lowest: float, highest: float) -> float | None:
    """Reads the rating in the last double brackets of a reply.

    Args:
        text: the reply.
        lowest: lower end of the scale.
        highest: upper end of the scale, and the only denominator of fractions.

    Returns:
        The rating; None if there is none, if the last brackets hold something else, or if it is outside the scale.
        Brackets that only name the scale (`out of [[10]]`, `[[1]] to [[10]]`) do not count.
    """
    written = _WRITTEN_RATING.findall(_scale_note(lowest, highest).sub("", plain_brackets(text)))
    if not written:
        return None
    found = _RATING.fullmatch(_EMPHASIS.sub("", "".join(written[-1])).strip())
    if found is None or (found[2] and float(found[2]) != highest):
        return None
    rating = float(found[1])
    return rating if lowest <= rating <= highest else None


def _scale_note(lowest: float, highest: float) -> re.Pattern[str]:
    """Matches brackets that name the scale and not the rating."""
    low, high = rf"(?:\[\[(?:{lowest:g}|1)\]\]|\b[01])", rf"\[\[{highest:g}\]\]"
    return re.compile(
        rf"{low} *(?:to|and|through|[-–—~至到]) *{high}"
        rf"|(?:/|out of|scale of|满分(?:为|是)?) *{high}"
        rf"|{high} *(?:is|being|means|=|为|是) *(?:the )?(?:best|highest|maximum|perfect|满分|最高|最好)",
        re.IGNORECASE,
    )


def plain_brackets(text: str) -> str:
    """Replaces full-width characters, escaped brackets and other double brackets by plain ones."""
    return _ESCAPED.sub(r"\1", unicodedata.normalize("NFKC", text).translate(_OTHER_BRACKETS))


def own_verdict(reply: str, material: str) -> str:
    """The part of a reply to look for the verdict in.

    If the judged material holds double brackets, an analysis may quote them: then only a last line that holds nothing
    but a verdict counts. Otherwise the whole reply counts.
    """
    if "[[" not in plain_brackets(material):
        return reply
    lines = reply.strip().splitlines()
    return lines[-1] if lines and _RATING_LINE.fullmatch(plain_brackets(lines[-1]).strip()) else ""
