"""Which waiting requests go into the next batch of a model in this process.

Requests with a common beginning (samples of one prompt, prompts with the same instructions and examples) go together,
and the model reads the beginning once. Otherwise requests of similar length go together, which saves padding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# A shorter common beginning is not worth a forward pass of its own.
_SHARED_AT_LEAST = 64
# Rows with very different limits of new tokens do not go together: short replies would wait for long ones.
_LIMITS_APART = 4


class Waiting(NamedTuple):
    """The properties of a waiting request that decide about its batch."""

    ids: np.ndarray
    """Tokens of the prompt, int32, shape (tokens,)."""
    limit: int
    """Most new tokens."""


class Batch(NamedTuple):
    """Requests to answer together."""

    rows: list[int]
    """Indices of the waiting requests. The first request is always among them, so that none waits forever."""
    shared: int
    """Length of the common beginning that the model reads once; 0 if it is too short."""


def choose_batch(
    waiting: Sequence[Waiting], most_rows: int, most_read: int, most_kept: int, shares: bool = True
) -> Batch:
    """Chooses the request that has waited longest, and those that go best with it.

    Args:
        waiting: at least one request, in the order of their waiting times, the longest first.
        most_rows: limit of rows.
        most_read: limit of tokens that are read for all rows; a common beginning counts once, padding counts.
        most_kept: limit of tokens in the KV cache; a common beginning counts for each row.
        shares: whether the model can read a common beginning once. If not, it counts for each row.

    Returns:
        The batch. A single request may exceed the limits.
    """
    first = waiting[0]
    alike = [
        row
        for row, request in enumerate(waiting)
        if row and max(request.limit, first.limit) <= _LIMITS_APART * min(request.limit, first.limit)
    ]
    common = {row: _common(first.ids, waiting[row].ids) if shares else 0 for row in alike}
    longest = max(common.values(), default=0)
    if longest >= _SHARED_AT_LEAST:
        # A row with a much shorter common beginning would shorten that of all rows.
        enough = max(_SHARED_AT_LEAST, longest // 2)
        alike = [row for row in alike if common[row] >= enough]
        alike.sort(key=lambda row: (-common[row], len(waiting[row].ids)))
    else:
        alike.sort(key=lambda row: abs(len(waiting[row].ids) - len(first.ids)))

    rows, shared, width = [0], len(first.ids) - 1, len(first.ids)
    for row in alike[: most_rows - 1]:
        # Each row keeps a token of its own: the model must read one to write the next.
        now = min(shared, common[row], len(waiting[row].ids) - 1)
        now = now if now >= _SHARED_AT_LEAST else 0
        wide = max(width, len(waiting[row].ids))
        count = len(rows) + 1
        if now + (wide - now) * count > most_read or wide * count > most_kept:
            break
        rows.append(row)
        shared, width = now, wide
    return Batch(rows, shared if len(rows) > 1 else 0)


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the common beginning of two prompts, in tokens."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length
