"""Runs one piece of async work for each question: many at once, none waiting for another, failures set aside.

Knows no method. Work that finished before is the method's to recognise (its journals); what this module owns is the
bound on questions in flight, which is also the bound on memory, and what becomes of a question that fails.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lf_longpo.errors import CallFailed, UserError
from lf_longpo.journal import Journal
from lf_longpo.progress import Progress
from lf_longpo.records import Question


@dataclass(slots=True)
class Tally:
    """How many questions came out of a run and how many did not."""

    done: int = 0
    failed: int = 0

    def exit_code(self, made: int, max_failure_rate: float) -> int:
        """1 where nothing was made or too large a share of the questions failed, else 0."""
        total = self.done + self.failed
        return int(made == 0 or self.failed > max_failure_rate * total)


async def run_questions(
    questions: Iterable[Question],
    work: Callable[[Question], Awaitable[None]],
    in_flight: int,
    failures: Path,
    progress: Progress,
) -> Tally:
    """Runs `work` for every question, at most `in_flight` at once.

    Args:
        questions: read only as fast as they are taken up.
        work: raises `CallFailed` where a question cannot be done; its failure is written down and the others go on.
        in_flight: bound on questions at once.
        failures: JSONL file of what could not be done this time; begun anew, since failed questions are tried again.
        progress: told of every question that ends.

    Raises:
        UserError: as soon as one piece of work or the reading raises it; the rest is cancelled.
        OSError: likewise.
    """
    tally = Tally()
    slots = asyncio.Semaphore(in_flight)
    failures.unlink(missing_ok=True)

    async def one(question: Question) -> None:
        try:
            await work(question)
            tally.done += 1
        except (UserError, OSError):  # OSError: a journal cannot be written; going on would lose work
            raise
        except Exception as error:
            tally.failed += 1
            record.append({"id": question.id, "reason": str(error) or type(error).__name__} | _details(error))
        finally:
            slots.release()
        progress.question_ended(failed=tally.failed)

    with Journal(failures, ["reason"]) as record:
        try:
            async with asyncio.TaskGroup() as group:
                source = iter(questions)
                # In a thread, since reading may wait for a disk or a hub.
                while (question := await asyncio.to_thread(next, source, None)) is not None:
                    await slots.acquire()
                    group.create_task(one(question))
        except* Exception as errors:
            raise _first(errors) from None
    if not tally.failed:
        failures.unlink()
    return tally


def _details(error: Exception) -> dict[str, str]:
    """Where an error came from that is nobody's known failure."""
    if isinstance(error, CallFailed):
        return {}
    return {"kind": type(error).__name__, "traceback": "".join(traceback.format_exception(error))}


def _first(errors: BaseExceptionGroup) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
