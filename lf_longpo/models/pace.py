"""How many calls a server takes at once: found by additive increase and multiplicative decrease.

The method is that of TCP (Chiu and Jain 1989). A rising time per token is the second sign of congestion, because
servers such as vLLM queue calls instead of refusing them. Libraries for rate limits (aiolimiter) limit calls per time,
not calls at once.
"""

import statistics
from collections import deque

# `max_concurrency: auto`: the first and the highest number of calls at once.
_FIRST, _MOST = 16, 1024
# Congestion: at least this share of the latest calls was refused. Single errors of a gateway do not count.
_LATEST, _ENOUGH, _SHARE = 32, 16, 0.2
# Number of calls for a measurement of the speed, and the factor by which it may fall below the best.
_WINDOW, _SLOWER = 64, 2.0


class Pace:
    """The number of calls that may be in flight at a server.

    Args:
        most: the first and highest number; None to find it.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most or _MOST
        self._limit = float(most or _FIRST)
        self._searching = most is None
        self._doubling = most is None
        self._cut_at = float("-inf")
        self._refused: deque[bool] = deque(maxlen=_LATEST)
        self._speeds: deque[float] = deque(maxlen=_WINDOW)
        self._best = float("inf")
        self._came_back = 0

    @property
    def limit(self) -> int:
        """At least 1."""
        return int(self._limit)

    def came_back(self, began: float, ended: float, tokens: int) -> None:
        """Notes a call that was answered.

        Args:
            began: its start, in seconds of any clock.
            ended: its end on the same clock.
            tokens: number of new tokens.
        """
        self._limit = min(self._most, self._limit + (1.0 if self._doubling else 1 / self._limit))
        self._note(began, refused=False)
        self._came_back += 1
        self._speeds.append((ended - began) / max(tokens, 1))
        if self._searching and self._came_back % _WINDOW == 0:
            now = statistics.median(self._speeds)
            self._best = min(self._best, now)
            if now > _SLOWER * self._best:
                self._cut(began, ended, 0.8)

    def refused(self, began: float, now: float) -> None:
        """Notes a call that an overloaded server refused or did not answer in time."""
        self._note(began, refused=True)
        if len(self._refused) >= _ENOUGH and sum(self._refused) > _SHARE * len(self._refused):
            self._cut(began, now, 0.5)

    def _note(self, began: float, refused: bool) -> None:
        if began >= self._cut_at:
            self._refused.append(refused)

    def _cut(self, began: float, now: float, factor: float) -> None:
        # Calls that were in flight at the last cut report the same congestion.
        if began >= self._cut_at:
            self._doubling = False
            self._limit = max(1.0, self._limit * factor)
            self._cut_at = now
            self._refused.clear()
