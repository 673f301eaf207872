"""Runs one piece of async work for each question: many at once, none waiting for another, failures set aside.

Knows no method. Work that finished before is the method's to recognise (its journals); what this module owns is the
bound on questions in flight, which is also the bound on memory, what becomes of a question that fails, and how a run
ends that somebody interrupts.
"""

import asyncio
import signal
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lf_longpo.aio import ON_FAULT
from lf_longpo.data.records import Question
from lf_longpo.engine.progress import Progress
from lf_longpo.errors import INTERRUPTED, CallFailed, Interrupted, Unfinished, UserError
from lf_longpo.files.journal import Journal, Row
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.turns import PLACE

FAILURES = "failures.jsonl"


@dataclass(slots=True)
class Tally:
    """How many questions came out of a run and how many did not."""

    done: int = 0
    failed: int = 0
    unfinished: int = 0
    """Stopped, or not begun, because the budget is spent or the run ended early."""
    interrupted: bool = False
    """Whether the run was to end early: somebody interrupted it, or there is a fault."""
    fault: UserError | OSError | None = None
    """What ended the run early: no further call could work, or no journal be written."""

    def exit_code(self, made: int, max_failure_rate: float) -> int:
        """How the run came out, once its results are written.

        130 where it was interrupted; 1 where nothing was made, the budget ended it, or too large a share of the
        questions failed; else 0.

        Raises:
            UserError: the fault that ended the run early.
            OSError: likewise.
        """
        if self.fault:
            raise self.fault
        if self.interrupted:
            return INTERRUPTED
        total = self.done + self.failed
        return int(made == 0 or self.unfinished > 0 or self.failed > max_failure_rate * total)


class Failures:
    """What could not be done this time and why, as JSONL; begun anew, since failed work is tried again.

    Args:
        path: the file; removed again where nothing failed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._journal = Journal(path)

    def record(self, id: str, error: Exception) -> None:
        """Writes one failure down, with where it came from if it is nobody's known failure."""
        row = {"id": id, "reason": str(error) or type(error).__name__}
        if (last_words := getattr(error, "last_words", None)) is not None:
            row["last_words"] = last_words
        if not isinstance(error, CallFailed):
            row |= {"kind": type(error).__name__, "traceback": "".join(traceback.format_exception(error))}
        self._journal.append(row)

    def carry_over(self, rows: Iterable[Row]) -> None:
        """Takes failures that were written down elsewhere."""
        for row in rows:
            self._journal.append(row)

    def __enter__(self) -> "Failures":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        if not len(self._journal):
            self._path.unlink()


async def run_questions(
    questions: Iterable[Question],
    number: int,
    work: Callable[[Question], Awaitable[None]],
    in_flight: int,
    failures: Failures,
    progress: Progress,
    ledger: Ledger,
) -> Tally:
    """Runs `work` for every question, at most `in_flight` at once.

    Ctrl-C, or the end of a job's time (SIGTERM), lets calls under way come back and makes no others; a second one stops
    at once. An error after which no call can work (no credit, a full disk) ends the run in the same way.

    Args:
        questions: read only as fast as they are taken up.
        number: how many they are.
        work: raises `CallFailed` where a question cannot be done; its failure is written down and the others go on.
            `Unfinished` leaves one unfinished; the others go on, since what they need may be there already.
        in_flight: bound on questions at once.
        failures: told of every question that cannot be done.
        progress: told of every question that ends.
        ledger: told of an interruption.

    Returns:
        What came of them; the first `UserError` or `OSError` of the work or the reading is its `fault`.
    """
    tally = Tally()
    slots = asyncio.Semaphore(in_flight)
    source = enumerate(questions)

    def end(fault: UserError | OSError) -> None:
        if tally.fault is None:
            progress.note("an error ends the run: calls under way come back first; Ctrl-C stops at once")
            tally.fault = fault
        tally.interrupted = True
        ledger.interrupt()

    async def read() -> tuple[int, Question] | None:
        try:  # in a thread, since reading may wait for a disk or a hub
            return await asyncio.to_thread(next, source, None)
        except (UserError, OSError) as error:
            end(error)
            return None

    async def one(question: Question, place: int) -> None:
        PLACE.set(min(place, number - in_flight))
        ON_FAULT.set(ledger.interrupt)
        try:
            await settle(question)
        except (UserError, OSError) as error:  # OSError: a journal cannot be written; going on would lose work
            end(error)
        finally:
            slots.release()
        progress.question_ended(failed=tally.failed)

    async def settle(question: Question) -> None:
        try:
            await work(question)
            tally.done += 1
        except (UserError, OSError):
            raise
        except Unfinished as error:
            tally.unfinished += 1
            tally.interrupted = tally.interrupted or isinstance(error, Interrupted)
        except Exception as error:
            tally.failed += 1
            failures.record(question.key, error)

    try:
        with _interruptible(ledger, progress):
            async with asyncio.TaskGroup() as group:
                while (numbered := await read()) is not None:
                    place, question = numbered
                    await slots.acquire()
                    if tally.interrupted:
                        break
                    group.create_task(one(question, place))
    except* Exception as errors:
        raise _first(errors) from None
    if tally.interrupted:
        tally.unfinished = number - tally.done - tally.failed
    return tally


@contextmanager
def _interruptible(ledger: Ledger, progress: Progress) -> Iterator[None]:
    """While the block lasts, the first signal lets the run end and the second cancels the block."""
    loop, block = asyncio.get_running_loop(), asyncio.current_task()
    signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)

    def interrupt() -> None:
        if ledger.interrupted:
            block.cancel()
        else:
            ledger.interrupt()
            progress.note("interrupted: calls under way come back first; once more stops at once")

    if threading.current_thread() is not threading.main_thread():
        signals = ()  # only the main thread may handle them
    for number in signals:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    except asyncio.CancelledError:
        raise (KeyboardInterrupt if ledger.interrupted else asyncio.CancelledError) from None
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _first(errors: BaseExceptionGroup) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
