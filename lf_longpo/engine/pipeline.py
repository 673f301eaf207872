"""Runs async work for many questions at once. No question waits for another, and a failure costs its own question only.

The pipeline knows no method. A method finds in its journals what an earlier start finished. The pipeline limits the
questions in flight (and with them the memory), records failures, and ends a run that is interrupted.
"""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from lf_longpo.aio import ON_FAULT
from lf_longpo.engine.failures import Failures
from lf_longpo.engine.progress import Progress
from lf_longpo.errors import INTERRUPTED, Interrupted, Unfinished, UserError
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.turns import QuestionOrder


class Identified(Protocol):
    """What the pipeline needs of a question, or of what stands for one."""

    @property
    def id(self) -> str:
        """Names its calls."""
        ...

    @property
    def key(self) -> str:
        """Unique in the run; names its failure."""
        ...


Q = TypeVar("Q", bound=Identified)


@dataclass(slots=True)
class Tally:
    """How many questions of a run are done and how many are not."""

    done: int = 0
    failed: int = 0
    unfinished: int = 0
    """Stopped or not begun, because the budget is spent or the run ended early."""
    interrupted: bool = False
    """Whether the run ended early: a signal interrupted it, or there is a fault."""
    fault: UserError | OSError | None = None
    """The error that ended the run early: no further call could work, or a journal could not be written."""

    def counts(self) -> dict[str, Any]:
        """What a summary says about it."""
        return {"failed": self.failed, "unfinished": self.unfinished, "interrupted": self.interrupted}

    def exit_code(self, made: int, max_failure_rate: float) -> int:
        """The exit code of the run, once its results are written.

        Args:
            made: how many results there are.
            max_failure_rate: the largest share of failed questions that counts as success.

        Returns:
            130 where the run was interrupted; 1 where nothing was made, the budget ended the run, or too many
            questions failed; else 0.

        Raises:
            UserError: the fault that ended the run early, with a note of what is finished.
            OSError: likewise.
        """
        if self.fault:
            self.fault.add_note(
                f"{self.done:,} finished and kept, {self.failed:,} failed, {self.unfinished:,} unfinished"
            )
            raise self.fault
        if self.interrupted:
            return INTERRUPTED
        total = self.done + self.failed
        return int(made == 0 or self.unfinished > 0 or self.failed > max_failure_rate * total)


class Pipeline(Generic[Q]):
    """Runs `work` for every question, at most `in_flight` at once.

    Ctrl-C, or the end of a job's time (SIGTERM), stops new calls and lets the calls under way come back; a second
    signal stops at once. An error after which no call can work (no credit, a full disk) ends the run in the same way.

    Args:
        number: how many questions there are.
        work: raises `CallFailed` where its question fails; the failure is recorded and the other questions go on.
            `Unfinished` leaves its question unfinished; the others go on, since their calls may be in the cache.
        in_flight: the most questions at once.
        failures: records each question that fails.
        progress: shows each question that ends.
        ledger: is interrupted with the run.
        order: ranks the questions in flight.
        finished: returns the keys of all questions that may need no call any more. An interrupted run also works on
            those that it has not reached, so that its counts hold what earlier starts finished.
    """

    def __init__(
        self,
        number: int,
        work: Callable[[Q], Awaitable[None]],
        in_flight: int,
        failures: Failures,
        progress: Progress,
        ledger: Ledger,
        order: QuestionOrder,
        finished: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._number = number
        self._work = work
        self._in_flight = in_flight
        self._failures = failures
        self._progress = progress
        self._ledger = ledger
        self._order = order
        self._finished = finished
        self._begun: set[str] = set()
        self._slots = asyncio.Semaphore(in_flight)
        self._tally = Tally()

    async def run(self, questions: Iterable[Q]) -> Tally:
        """Runs all questions, once.

        Args:
            questions: read only as fast as they are begun.

        Returns:
            How they ended. Its `fault` is the first `UserError` or `OSError` of the work or of the reading.
        """
        source = enumerate(questions)
        try:
            with _interruptible(self._ledger, self._progress):
                async with asyncio.TaskGroup() as group:
                    async for number, question in self._to_begin(source):
                        # The last questions share a rank: among them, the longest chain of calls goes first.
                        rank = min(number, self._number - self._in_flight)
                        group.create_task(self._in_slot(question, rank))
        except* Exception as errors:
            raise _first(errors) from None
        if self._tally.interrupted:
            self._tally.unfinished = self._number - self._tally.done - self._tally.failed
        return self._tally

    async def _to_begin(self, source: Iterator[tuple[int, Q]]) -> AsyncIterator[tuple[int, Q]]:
        """The questions, each with its number and a slot. After an interruption, those that are finished already."""
        finished: set[str] | None = None
        while finished != set() and (numbered := await self._next(source)) is not None:
            await self._slots.acquire()
            if self._tally.interrupted and finished is None:
                finished = set(self._finished()) - self._begun
            key = numbered[1].key
            if finished is None or key in finished:
                self._begun.add(key)
                yield numbered
            else:
                self._slots.release()
            if finished:
                finished.discard(key)

    async def _next(self, source: Iterator[tuple[int, Q]]) -> tuple[int, Q] | None:
        try:  # in a thread, since reading may wait for a disk or a hub
            return await asyncio.to_thread(next, source, None)
        except (UserError, OSError) as error:
            self._end(error)
            return None

    async def _in_slot(self, question: Q, rank: int) -> None:
        ON_FAULT.set(self._ledger.interrupt)
        try:
            with self._order.ranked(question.id, rank):
                await self._settle(question)
        except (UserError, OSError) as error:  # OSError: a journal cannot be written; going on would lose work
            self._end(error)
        finally:
            self._slots.release()
        self._progress.questions_ended(self._tally.done + self._tally.failed, self._tally.failed)

    async def _settle(self, question: Q) -> None:
        try:
            await self._work(question)
            self._tally.done += 1
        except (UserError, OSError):
            raise
        except Unfinished as error:
            self._tally.unfinished += 1
            self._tally.interrupted = self._tally.interrupted or isinstance(error, Interrupted)
        except Exception as error:
            self._tally.failed += 1
            self._failures.record(question.key, error)

    def _end(self, fault: UserError | OSError) -> None:
        if self._tally.fault is None:
            self._progress.note("an error ends the run: waiting for the calls under way; Ctrl-C stops at once")
            self._tally.fault = fault
        self._tally.interrupted = True
        self._ledger.interrupt()


@contextmanager
def _interruptible(ledger: Ledger, progress: Progress) -> Iterator[None]:
    """While the block lasts, the first signal ends the run and the second cancels the block."""
    loop, block = asyncio.get_running_loop(), asyncio.current_task()
    signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)

    def interrupt() -> None:
        if not ledger.interrupted:
            ledger.interrupt()
            progress.note("interrupted: waiting for the calls under way; a second Ctrl-C stops at once")
        elif block:
            block.cancel()

    if threading.current_thread() is not threading.main_thread():
        signals = ()  # only the main thread can handle them
    for number in signals:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    except asyncio.CancelledError:
        raise (KeyboardInterrupt if ledger.interrupted else asyncio.CancelledError) from None
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
