"""Marks the gold answer in responses and in a context."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from lf_longpo.text.differences import Piece, visible
from lf_longpo.text.graphemes import whole_start

# A gold answer such as "a" can be in a context a thousand times; more marks do not help.
_MOST = 200
# The number of characters of a piece of a context that are shown.
_PIECE = 400_000


class ContextPart(NamedTuple):
    """A part of a context."""

    text: str
    gold: bool
    """Whether it is a gold answer."""
    label: str
    """The chunk that begins with this part; empty if none does."""


def gold_spans(text: str, answers: Sequence[str]) -> list[tuple[int, int]]:
    """The start and end of each gold answer in a text, in order and without overlaps; at most 200.

    Upper and lower case, and kinds of white space, are not distinguished. A word inside another word does not count.
    """
    words = [answer.split() for answer in sorted(answers, key=len, reverse=True)]
    patterns = [r"\s+".join(map(re.escape, parts)) for parts in words if parts]
    if not patterns:
        return []
    bounded = (f"{_edge(pattern[0], 'before')}{pattern}{_edge(pattern[-1], 'after')}" for pattern in patterns)
    found = re.finditer("|".join(bounded), text, re.IGNORECASE)
    return [match.span() for match, _ in zip(found, range(_MOST), strict=False)]


def marked(text: str, answers: Sequence[str], limit: int) -> list[Piece]:
    """A response in pieces; gold answers are marked as `own`.

    Args:
        text: the response.
        answers: the gold answers.
        limit: the most characters to show.
    """
    shown = visible(text, limit)
    spans = gold_spans(shown, answers)
    cuts = sorted({0, len(shown), *(edge for span in spans for edge in span)})
    return [Piece(shown[start:end], (start, end) in spans) for start, end in pairwise(cuts)]


def context_parts(context: str, answers: Sequence[str], chunks: Sequence[tuple[int, int]]) -> list[ContextPart]:
    """A context in parts, with gold answers marked and the begin of each chunk labelled.

    Args:
        context: of the question.
        answers: the gold answers.
        chunks: the start and end of each chunk; empty if they are unknown.
    """
    spans = gold_spans(context, answers)
    # Tokens can end within a character of several code points.
    labels = {whole_start(context, start): f"chunk {number}" for number, (start, _) in enumerate(chunks, 1)}
    cuts = sorted({0, len(context), *labels, *(edge for span in spans for edge in span)})
    gold = [any(begin <= start and end <= last for begin, last in spans) for start, end in pairwise(cuts)]
    return [
        ContextPart(visible(context[start:end], _PIECE), is_gold, labels.get(start, ""))
        for (start, end), is_gold in zip(pairwise(cuts), gold, strict=True)
    ]


def _edge(character: str, side: str) -> str:
    """The condition that a word does not go on before or after the answer; none for Chinese, which has no spaces."""
    if not (character.isascii() and character.isalnum()):
        return ""
    return r"(?<![A-Za-z0-9])" if side == "before" else r"(?![A-Za-z0-9])"
