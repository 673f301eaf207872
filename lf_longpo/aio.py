"""What asyncio lacks: waiting for several calls without abandoning any when one fails, and sharing one result among
all tasks that need it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lf_longpo.errors import CallFailed, Unfinished, UserError

T = TypeVar("T")

ON_FAULT: ContextVar[Callable[[], None]] = ContextVar("on_fault", default=lambda: None)
"""Called as soon as an error ends the run; other calls of the same question may still be in flight."""
# The errors that end the run.
_FAULTS = (UserError, OSError)


async def all_settled(*work: Awaitable[T]) -> list[T]:
    """The results, in order. If one fails, the others still finish: a call in flight is paid for, so its reply is kept.

    Args:
        work: awaitables, which run concurrently.

    Raises:
        Exception: after all have finished, the first error of the most severe kind. The kinds, most severe first:
            errors that end the run, `Unfinished`, unexpected errors, `CallFailed`.
    """
    tasks = [asyncio.ensure_future(awaitable) for awaitable in work]
    try:
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
            if any(isinstance(_error(task), _FAULTS) for task in done):
                ON_FAULT.get()()
    finally:  # also when this call itself is cancelled
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if errors := [error for error in map(_error, tasks) if error is not None]:
        raise min(errors, key=_rank)
    return [task.result() for task in tasks]


def _rank(error: BaseException) -> int:
    if isinstance(error, _FAULTS):
        return 0
    if isinstance(error, Unfinished):
        return 1
    return 3 if isinstance(error, CallFailed) else 2


def _error(task: "asyncio.Future[Any]") -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()


@dataclass(slots=True)
class _SharedTask(Generic[T]):
    task: "asyncio.Task[T]"
    waiting: int = 0


class Once(Generic[T]):
    """Makes each key's result once and shares it among all callers.

    Args:
        remembered: how many results are kept after their last caller has got them; the oldest are dropped first.
    """

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self._tasks: dict[Hashable, _SharedTask[T]] = {}
        self._idle: dict[Hashable, None] = {}  # finished tasks without a waiting caller, oldest first

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `make()`, or of the `make()` that an earlier caller started for this key.

        An error is raised in all waiting callers and is not remembered. A task without a waiting caller is cancelled.

        Args:
            key: what the result belongs to.
            make: starts the work.

        Raises:
            Exception: what `make()` raised.
        """
        shared = self._tasks.get(key)
        if shared is None:
            shared = self._tasks[key] = _SharedTask(asyncio.create_task(make()))
        self._idle.pop(key, None)
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)  # a cancelled caller must not cancel it for the others
        finally:
            shared.waiting -= 1
            if not shared.waiting:
                self._settle(key, shared)

    def _settle(self, key: Hashable, shared: _SharedTask[T]) -> None:
        shared.task.cancel()  # no effect on a finished task
        if self._tasks.get(key) is not shared:
            return
        if not shared.task.done() or _error(shared.task) is not None:
            del self._tasks[key]
            return
        self._idle[key] = None
        if len(self._idle) > self._remembered:
            oldest = next(iter(self._idle))
            del self._idle[oldest], self._tasks[oldest]
