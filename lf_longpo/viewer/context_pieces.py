"""A context in pieces: the evidence of the responses, and the text between."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from lf_longpo.text.differences import visible
from lf_longpo.text.graphemes import whole_start
from lf_longpo.viewer.pair_evidence import Span

# The number of characters of a piece that are shown.
_MOST = 400_000


class ContextPiece(NamedTuple):
    """A piece of a context."""

    text: str
    sides: tuple[str, ...]
    """The responses that it is evidence of: `chosen`, `rejected`, both or none."""
    labels: tuple[str, ...]
    """The labels of the spans that begin with this piece."""


def context_pieces(context: str, spans: Sequence[Span]) -> list[ContextPiece]:
    """Cuts a context at the edges of all spans. If spans overlap, a piece belongs to several.

    Tokens can end within a character of several code points, such as an emoji: then a span begins or ends before it.
    """
    spans = [
        span._replace(start=whole_start(context, span.start), end=whole_start(context, span.end)) for span in spans
    ]
    cuts = sorted({0, len(context), *(edge for span in spans for edge in (span.start, span.end))})
    pieces = []
    for start, end in pairwise(cuts):
        covering = [span for span in spans if span.start <= start and end <= span.end]
        sides = tuple(side for side in ("chosen", "rejected") if any(side in span.sides for span in covering))
        labels = tuple(span.label for span in covering if span.start == start)
        pieces.append(ContextPiece(visible(context[start:end], _MOST), sides, labels))
    return pieces
