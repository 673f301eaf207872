"""Small gaps in asyncio: waiting for several calls without abandoning those that still run when one fails, and doing
something once for all who need it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lf_longpo.errors import CallFailed, Unfinished, UserError

T = TypeVar("T")

# Called as soon as an error is raised that ends the run; other calls of its question may still be under way.
ON_FAULT: ContextVar[Callable[[], None]] = ContextVar("on_fault", default=lambda: None)
# The errors that do.
_FAULTS = (UserError, OSError)


async def all_settled(*work: Awaitable[T]) -> list[T]:
    """The results, in order. Where one fails, the others end first: a call under way is paid for, so its reply is kept.

    Raises:
        Exception: once all have ended, the first error of the kind that matters most: one that ends the run, then
            `Unfinished`, then an unexpected one, then `CallFailed`.
    """
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
            if any(isinstance(_error(task), _FAULTS) for task in done):
                ON_FAULT.get()()
    finally:  # where this call itself is cancelled
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if errors := [error for error in map(_error, tasks) if error is not None]:
        raise min(errors, key=_rank)
    return [task.result() for task in tasks]


def _rank(error: BaseException) -> int:
    kinds = {_FAULTS: 0, Unfinished: 1, CallFailed: 3}
    return next((rank for kind, rank in kinds.items() if isinstance(error, kind)), 2)


def _error(task: "asyncio.Future[Any]") -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()


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
        self._begun: dict[Hashable, _Begun[T]] = {}
        self._idle: dict[Hashable, None] = {}  # finished and waited for by nobody, the latest last

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `make()`, or of the one that was begun for this key before.

        A failure goes to all who wait and is not remembered. What nobody waits for any more is cancelled.
        """
        begun = self._begun.get(key)
        if begun is None:
            begun = self._begun[key] = _Begun(asyncio.create_task(make()))
        self._idle.pop(key, None)
        begun.waiting += 1
        try:
            return await asyncio.shield(begun.task)  # one who gives up must not take it from the others
        finally:
            begun.waiting -= 1
            if not begun.waiting:
                self._settle(key, begun)

    def _settle(self, key: Hashable, begun: _Begun[T]) -> None:
        begun.task.cancel()  # no effect where it is done
        if self._begun.get(key) is not begun:
            return
        if not begun.task.done() or _error(begun.task) is not None:
            del self._begun[key]
            return
        self._idle[key] = None
        if len(self._idle) > self._remembered:
            oldest = next(iter(self._idle))
            del self._idle[oldest], self._begun[oldest]
