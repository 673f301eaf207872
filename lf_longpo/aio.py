"""Small gaps in asyncio: waiting for several calls without abandoning those that still run when one fails, and doing
something once for all who need it."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
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


@dataclass(slots=True)
class _Begun(Generic[T]):
    task: "asyncio.Task[T]"
    waiting: int = 0


class Once(Generic[T]):
    """Results by key, each made once for all who ask for it while it is made or remembered.

    Args:
        remembered: how many of the latest results are kept.
    """

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self._begun: OrderedDict[Hashable, _Begun[T]] = OrderedDict()

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `make()`, or of the one that was begun for this key before.

        A failure goes to all who wait and is not remembered. What nobody waits for any more is cancelled.
        """
        begun = self._begun.get(key)
        if begun is None:
            begun = self._begun[key] = _Begun(asyncio.create_task(make()))
        self._begun.move_to_end(key)
        while len(self._begun) > self._remembered:
            self._begun.popitem(last=False)  # those who wait for it hold it themselves
        begun.waiting += 1
        try:
            return await asyncio.shield(begun.task)  # one who gives up must not take it from the others
        finally:
            begun.waiting -= 1
            if not begun.task.done() and not begun.waiting:
                begun.task.cancel()
            failed = begun.task.done() and (begun.task.cancelled() or begun.task.exception() is not None)
            if (failed or not begun.task.done()) and not begun.waiting and self._begun.get(key) is begun:
                del self._begun[key]
