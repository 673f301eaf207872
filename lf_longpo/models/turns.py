"""The order of calls: as many calls at once as the model takes, in the order that keeps it busy until the end.

A question is a chain of calls that wait for each other. First come, first served would let the chains end one by one
and leave slots empty at the end of a run. So calls of older questions go first, which finishes these questions soonest.
Among the last questions of a run, the call with the most calls to follow (the critical path) goes first, so that all
chains end together.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count


class QuestionOrder:
    """The ranks of the questions in flight. The run assigns them; the models of the run serve lower ranks first."""

    def __init__(self) -> None:
        self._ranks: dict[str, int] = {}

    @contextmanager
    def ranked(self, question: str, rank: int) -> Iterator[None]:
        """Gives a question its rank while the block lasts.

        Args:
            question: its id.
            rank: lower ranks go first; several questions may share one.
        """
        self._ranks[question] = rank
        try:
            yield
        finally:
            self._ranks.pop(question, None)

    def rank(self, question: str) -> int:
        """The rank of a question; 0 where the run has not assigned one."""
        return self._ranks.get(question, 0)


class Turns:
    """Turns at one model.

    Args:
        limit: returns how many calls may be under way now; called whenever a call arrives or ends.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._under_way = 0
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._arrival = count()

    @asynccontextmanager
    async def take(self, rank: int, following: int) -> AsyncIterator[None]:
        """Waits for a turn and holds it while the block lasts.

        Args:
            rank: of the call's question; lower ranks go first.
            following: calls of the same chain that can only be made after this one.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, -following, next(self._arrival), turn))
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had the turn already
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
