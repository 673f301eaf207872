"""A provider's limits of requests and tokens per minute, kept in every period of sixty seconds.

aiolimiter is a leaky bucket: it lets twice the limit through in the first minute, and refuses amounts above the limit.
The processes of a run on Ray each get their share of the limit (generation/distributed.py).
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

_MINUTE = 60.0


class Quota:
    """A limit over a sliding minute.

    Args:
        most: the limit per minute; None for no limit.
        pause: sleeps for a number of seconds, and raises if the run is interrupted.
    """

    def __init__(self, most: int | None, pause: Callable[[float], Awaitable[None]]) -> None:
        self._most = most
        self._pause = pause
        self._taken: deque[tuple[float, int]] = deque()
        self._sum = 0
        self._turn = asyncio.Lock()

    async def take(self, amount: int) -> None:
        """Waits until the amount is allowed. An amount above the limit waits for a minute without any other."""
        if self._most is None:
            return
        async with self._turn:  # in order of arrival, so that small amounts do not keep a large one waiting forever
            while True:
                now = time.monotonic()
                while self._taken and self._taken[0][0] <= now - _MINUTE:
                    self._sum -= self._taken.popleft()[1]
                if self._sum + amount <= self._most or not self._taken:
                    break
                await self._pause(self._taken[0][0] + _MINUTE - now)
            self._taken.append((now, amount))
            self._sum += amount
