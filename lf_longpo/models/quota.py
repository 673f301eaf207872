"""Requests and tokens a minute that a provider allows, never exceeded in any sixty seconds."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

_MINUTE = 60.0


class Quota:
    """A hard limit over a sliding minute.

    Args:
        most: a minute; None for no limit.
        pause: sleeps.
    """

    def __init__(self, most: int | None, pause: Callable[[float], Awaitable[None]]) -> None:
        self._most = most
        self._pause = pause
        self._taken: deque[tuple[float, int]] = deque()
        self._sum = 0
        self._turn = asyncio.Lock()

    async def take(self, amount: int) -> None:
        """Waits until so much more is allowed; more than a whole minute's share waits for an empty minute."""
        if self._most is None:
            return
        async with self._turn:  # in order of arrival, so that small ones do not starve a large one
            while True:
                now = time.monotonic()
                while self._taken and self._taken[0][0] <= now - _MINUTE:
                    self._sum -= self._taken.popleft()[1]
                if self._sum + amount <= self._most or not self._taken:
                    break
                await self._pause(self._taken[0][0] + _MINUTE - now)
            self._taken.append((now, amount))
            self._sum += amount
