"""A context in pieces: what either side rests on, and what lies between."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from lf_longpo.text.differences import visible
from lf_longpo.viewer.source_spans import Span

# Characters of a piece that are shown.
_MOST = 400_000


class Marked(NamedTuple):
    """A piece of a context."""

    text: str
    sides: tuple[str, ...]
    labels: tuple[str, ...]
    """What begins with it."""


def marked(context: str, spans: Sequence[Span]) -> list[Marked]:
    """The whole context; where spans overlap, a piece belongs to all of them."""
    cuts = sorted({0, len(context), *(edge for span in spans for edge in (span.start, span.end))})
    pieces = []
    for start, end in pairwise(cuts):
        over = [span for span in spans if span.start <= start and end <= span.end]
        sides = tuple(side for side in ("chosen", "rejected") if any(side in span.sides for span in over))
        labels = tuple(span.label for span in over if span.start == start)
        pieces.append(Marked(visible(context[start:end], _MOST), sides, labels))
    return pieces
