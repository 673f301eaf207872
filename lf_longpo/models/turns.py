"""Whose call is next: as many calls at once as the model takes, in the order that keeps it busy to the end.

A question is a chain of calls that wait for each other. Served in turn, chains would end one by one and leave slots
empty at the end of a run. So the oldest question goes first, which finishes it soonest, and among the last ones the
call with the longest chain behind it (the critical path), which lets them end together.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import count

# The place in the run of the question that a task works for; the last ones of a run share one.
PLACE: ContextVar[int] = ContextVar("place", default=0)


class Turns:
    """Turns at one model.

    Args:
        limit: how many calls may be under way now; asked whenever one arrives or ends.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._under_way = 0
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._arrival = count()

    @asynccontextmanager
    async def take(self, behind: int) -> AsyncIterator[None]:
        """Waits for a turn and holds it while the block lasts.

        Args:
            behind: calls of the same chain that can only be made after this one.
        """
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (PLACE.get(), -behind, next(self._arrival), turn))
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # given and not wanted any more
                self._end()
            raise
        try:
            yield
        finally:
            self._end()

    def _end(self) -> None:
        self._under_way -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._under_way < self._limit():
            turn = heapq.heappop(self._waiting)[-1]
            if not turn.done():
                turn.set_result(None)
                self._under_way += 1
