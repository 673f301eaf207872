"""Small gaps in asyncio: waiting for several calls without abandoning those that still run when one fails, and doing
something once for all who need it."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


async def all_settled(*work: Awaitable[T]) -> list[T]:
    """The results, in order. Where some fail, the first error, once all have ended: what finishes is kept and paid for.

    Raises:
        BaseException: the first error.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


class Once(Generic[T]):
    """Results by key, each made once for all who ask for it while it is made or remembered.

    Args:
        remembered: how many of the latest results are kept.
    """

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self._made: OrderedDict[Hashable, asyncio.Task[T]] = OrderedDict()

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `make()`, or of the one that was begun for this key before; a failure is not remembered."""
        task = self._made.get(key)
        if task is None:
            task = self._made[key] = asyncio.create_task(make())
        self._made.move_to_end(key)
        while len(self._made) > self._remembered:
            self._made.popitem(last=False)  # those who wait for it hold it themselves
        try:
            return await asyncio.shield(task)  # one who gives up must not take it from the others
        except BaseException:
            if task.done() and self._made.get(key) is task:
                del self._made[key]
            raise
