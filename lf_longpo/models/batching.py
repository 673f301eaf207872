"""Which waiting requests make a good batch for a model in this process.

Requests that begin alike (samples of one prompt, one set of instructions and examples) go together: what they share is
read by the model once. Otherwise those of like length go together, so that little is padded.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# A shorter common beginning is not worth a pass of its own.
_SHARED_AT_LEAST = 64
# Rows that may write very different numbers of tokens do not go together: the short ones would wait for the long ones.
_LIMITS_APART = 4


class Waiting(NamedTuple):
    """What counts of a waiting request."""

    ids: np.ndarray
    """Tokens of the prompt, int32."""
    limit: int
    """Most new tokens."""


class Batch(NamedTuple):
    """Rows to answer together."""

    rows: list[int]
    """Their places among the waiting ones; the first one is always there, so that nobody starves."""
    shared: int
    """Tokens that all of them begin with and that the model reads once; 0 where it is not worth it."""


def choose_batch(
    waiting: Sequence[Waiting], most_rows: int, most_read: int, most_kept: int, shares: bool = True
) -> Batch:
    """The longest waiting request and those that go best with it.

    Args:
        waiting: at least one request, the longest waiting first.
        most_rows: bound on the rows.
        most_read: bound on the tokens read for all rows, shared ones counted once, padding included.
        most_kept: bound on the tokens whose keys and values are held, shared ones counted for each row.
        shares: whether the model can read a common beginning once; without, it counts for each row.

    Returns:
        The batch; one request alone may exceed the bounds.
    """
    first = waiting[0]
    alike = [
        place
        for place, other in enumerate(waiting)
        if place and max(other.limit, first.limit) <= _LIMITS_APART * min(other.limit, first.limit)
    ]
    common = {place: _common(first.ids, waiting[place].ids) if shares else 0 for place in alike}
    longest = max(common.values(), default=0)
    if longest >= _SHARED_AT_LEAST:
        # Rows that share little of what the best one shares would spoil it for the others.
        enough = max(_SHARED_AT_LEAST, longest // 2)
        alike = [place for place in alike if common[place] >= enough]
        alike.sort(key=lambda place: (-common[place], len(waiting[place].ids)))
    else:
        alike.sort(key=lambda place: abs(len(waiting[place].ids) - len(first.ids)))

    rows, shared, width = [0], len(first.ids) - 1, len(first.ids)
    for place in alike[: most_rows - 1]:
        # Each row keeps a token of its own: the model has to read one to go on.
        now = min(shared, common[place], len(waiting[place].ids) - 1)
        now = now if now >= _SHARED_AT_LEAST else 0
        wide = max(width, len(waiting[place].ids))
        count = len(rows) + 1
        if now + (wide - now) * count > most_read or wide * count > most_kept:
            break
        rows.append(place)
        shared, width = now, wide
    return Batch(rows, shared if len(rows) > 1 else 0)


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two prompts begin with in common."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length
