"""The starts of a run: when each began, how long it took, and the version that ran."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from lf_longpo import __version__
from lf_longpo.files.journal import Journal, read_rows

STARTS = "starts.jsonl"


class Start(NamedTuple):
    """One start of a run."""

    began: str
    """Date and time in UTC."""
    version: str
    """Of lf-longpo."""
    seconds: float | None
    """Its duration; None if it is still running or was killed."""


@contextmanager
def recorded_start(folder: Path) -> Iterator[Callable[[], None]]:
    """Records that the block began and, unless the process is killed, how long it took.

    Yields:
        A function that records the duration before the block ends; further calls change nothing.
    """
    began = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    clock = time.monotonic()
    ended = False
    with Journal(folder / STARTS) as starts:
        starts.append({"id": began, "version": __version__})

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                starts.append({"id": began, "seconds": round(time.monotonic() - clock, 1)})

        try:
            yield end
        finally:
            with suppress(OSError):  # a full disk, which the block has reported
                end()


def read_starts(folder: Path) -> list[Start]:
    """The starts of a run, in order; none for a run of an earlier version."""
    starts: list[Start] = []
    for row in read_rows(folder / STARTS):
        if "version" in row:
            starts.append(Start(row["id"], str(row["version"]), None))
        elif starts:
            starts[-1] = starts[-1]._replace(seconds=float(row["seconds"]))
    return starts
