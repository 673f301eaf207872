"""How many calls a server takes at once, found out by asking: additive increase, multiplicative decrease.

As TCP does it (Chiu and Jain 1989), with a rising time a token as the second sign of congestion, since servers such as
vLLM queue calls instead of refusing them.
"""

import statistics
from collections import deque

# Of `max_concurrency: auto`: where it begins and ends.
_FIRST, _MOST = 16, 1024
# The share of the latest calls that must be refused before that counts as congestion: a gateway's hiccups do not.
_LATEST, _ENOUGH, _SHARE = 32, 16, 0.2
# How many calls tell a server's speed, and how much slower than its best it may become.
_WINDOW, _SLOWER = 64, 2.0


class Pace:
    """The number of calls that may be under way at one server.

    Args:
        most: the number to begin with and never to exceed; None to find it out.
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
        """A call was answered.

        Args:
            began: when, in seconds of any clock.
            ended: likewise.
            tokens: new ones.
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
        """The server said that it has too much to do, or did not answer in time."""
        self._note(began, refused=True)
        if len(self._refused) >= _ENOUGH and sum(self._refused) > _SHARE * len(self._refused):
            self._cut(began, now, 0.5)

    def _note(self, began: float, refused: bool) -> None:
        if began >= self._cut_at:
            self._refused.append(refused)

    def _cut(self, began: float, now: float, factor: float) -> None:
        # All calls that were under way at a cut tell of the same congestion.
        if began >= self._cut_at:
            self._doubling = False
            self._limit = max(1.0, self._limit * factor)
            self._cut_at = now
            self._refused.clear()
