"""Search hits in texts that can already be in pieces: differences of responses, evidence in a context."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from lf_longpo.text.differences import Piece
from lf_longpo.text.graphemes import whole_end, whole_start
from lf_longpo.viewer.context_pieces import ContextPiece

# The number of hits that are marked in one text.
_MOST_HITS = 1_000


class HitPiece(NamedTuple):
    """A part of a piece that is a search hit, a part of one, or has none."""

    text: str
    of: Piece | ContextPiece
    """The piece that the text is a part of."""
    starts: bool
    """Whether the piece begins with this text."""
    hit: int
    """The number of the hit in the whole text, from 1; 0 for no hit."""
    begins: bool
    """Whether the hit begins with this text."""


class Hits(NamedTuple):
    """A text in pieces, with its search hits."""

    pieces: list[HitPiece]
    number: int
    """The number of hits; the first 1,000 are marked."""


def find_hits(source: str | Sequence[Piece | ContextPiece], needle: str) -> Hits:
    """Finds a text, in upper and lower case. A mark never splits a character: it includes the accents of its letters.

    Args:
        source: a text, or its pieces. A hit can go on over several pieces.
        needle: the text to find; empty for no search.
    """
    pieces = [Piece(source, False)] if isinstance(source, str) else source
    whole = "".join(piece.text for piece in pieces)
    spans = [match.span() for match in re.finditer(re.escape(needle), whole, re.IGNORECASE)] if needle else []
    widened = ((whole_start(whole, start), whole_end(whole, end)) for start, end in spans[:_MOST_HITS])
    marked = list(dict.fromkeys(widened))
    starts = list(accumulate((len(piece.text) for piece in pieces), initial=0))
    found = []
    for start, stop in pairwise(sorted({*starts, *chain.from_iterable(marked)})):
        number = bisect_right(starts, start) - 1
        hit = bisect_right(marked, (start, len(whole)))
        if hit and marked[hit - 1][1] <= start:
            hit = 0
        begins = hit > 0 and marked[hit - 1][0] == start
        found.append(HitPiece(whole[start:stop], pieces[number], start == starts[number], hit, begins))
    return Hits(found, len(spans))
