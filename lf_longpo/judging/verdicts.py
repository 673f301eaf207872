"""Finding the judge's own verdict in its reply.

The judge writes its analysis first and its verdict last, in double brackets. What it judges may hold double brackets
of its own, and an analysis may quote them; `own_verdict` keeps such quotes from being taken for the judge's word.

`find_rating` is the rule of LongReward's published code (arXiv 2410.21252). Judges also write `[[8/10]]`,
`[[Rating: 8]]` or `［［８分］］`; `rating_between` reads these forms. It looks at the last brackets only: where they
hold anything else, there is no rating, and an earlier number does not count in its place.
"""

import re
import unicodedata

_PUBLISHED_RATING = re.compile(r"\[\[(\d+\.\d+|\d+)\]\]")
_BRACKETS = re.compile(r"\[\[([^\[\]]*)\]\]")
# Brackets, and what may follow them of a fraction: `[[8]]/10`.
_WRITTEN_RATING = re.compile(r"\[\[([^\[\]]*)\]\](\s*(?:/|out of)\s*\d+)?")
# A label, a number, what it is a fraction of, a unit.
_RATING = re.compile(
    r"(?:(?!scale|max|min|range|满分|总分)[^\W\d][^\d:=]{0,39}[:=]\s*|(?:rating|score|评分|得分|分数)\s*)?"
    r"(\d+(?:\.\d+)?)\s*(?:(?:/|out of)\s*(\d+))?\s*(?:分|points?)?",
    re.IGNORECASE,
)
# A verdict's line: nothing but marks around the brackets, a label with a colon before, a fraction after them.
_MARKS = r"[^\w\[\]\"'“”‘’「」『』`]*"
_VERDICT_LINE = re.compile(
    rf"{_MARKS}(?:[\w ]{{1,40}}[:：]{_MARKS})?\[\[[^\[\]]*\]\](?:\s*(?:/|out of)\s*\d+)?\s*分?{_MARKS}"
)
_OTHER_BRACKETS = str.maketrans(
    {"【": "[", "】": "]", "〔": "[", "〕": "]", "⟦": "[[", "⟧": "]]", "〚": "[[", "〛": "]]"}
)
_ESCAPED = re.compile(r"\\([\[\]])|(?<=\[)\s+(?=\[)|(?<=\])\s+(?=\])")
_EMPHASIS = re.compile(r"[*_`\"“”]")


def find_rating(text: str) -> float | None:
    """The last number in double brackets, whatever its size; None where there is none (the published rule)."""
    ratings = _PUBLISHED_RATING.findall(text)
    return float(ratings[-1]) if ratings else None


def find_verdict(text: str) -> str | None:
    """The last text in double brackets, lower-cased and without emphasis; None where there is none."""
    verdicts = _BRACKETS.findall(plain_brackets(text))
    return _EMPHASIS.sub("", verdicts[-1]).strip(" .。").lower() if verdicts else None


def rating_between(text: str, lowest: float, highest: float) -> float | None:
    """The rating in the last double brackets of a reply.

    Args:
        text: the reply.
        lowest: end of the scale.
        highest: the other end; fractions must be of it.

    Returns:
        The rating; None where there is none, where the last brackets hold something else, or outside the scale.
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
    """Brackets that say what the scale is, not what the rating is."""
    low, high = rf"(?:\[\[(?:{lowest:g}|1)\]\]|\b[01])", rf"\[\[{highest:g}\]\]"
    return re.compile(
        rf"{low} *(?:to|and|through|[-–—~至到]) *{high}"
        rf"|(?:/|out of|scale of|满分(?:为|是)?) *{high}"
        rf"|{high} *(?:is|being|means|=|为|是) *(?:the )?(?:best|highest|maximum|perfect|满分|最高|最好)",
        re.IGNORECASE,
    )


def plain_brackets(text: str) -> str:
    """A text in which full-width characters, escaped brackets and other double brackets became plain ones."""
    return _ESCAPED.sub(r"\1", unicodedata.normalize("NFKC", text).translate(_OTHER_BRACKETS))


def own_verdict(reply: str, material: str) -> str:
    """The part of a reply to look for the verdict in.

    Where the material that was judged holds double brackets, an analysis may quote them, and only a last line that is
    nothing but a verdict counts; elsewhere all of the reply does.
    """
    if "[[" not in plain_brackets(material):
        return reply
    lines = reply.strip().splitlines()
    return lines[-1] if lines and _VERDICT_LINE.fullmatch(plain_brackets(lines[-1]).strip()) else ""
