"""What a person sees of a training, while everything that libraries print goes to a log file."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO


class Screen:
    """The terminal, pipe or file that the command was started on.

    Args:
        out: where to write; None in processes that shall be silent.
    """

    def __init__(self, out: TextIO | None) -> None:
        self.out = out

    def note(self, text: str) -> None:
        """A line of its own."""
        if self.out is not None:
            print(f"longpo train: {text}", file=self.out, flush=True)


class Diverted:
    """The process's stdout and stderr, as file descriptors, so that native code and child processes are caught too.

    Attributes:
        screen: where stdout went before.
    """

    def __init__(self, early: BinaryIO) -> None:
        self._early = early
        self._tee: subprocess.Popen | None = None
        self._saved = os.dup(1), os.dup(2)
        # Of several processes on a machine one reports.
        shown = os.environ.get("RANK", "0") == "0"
        self.screen = Screen(os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace") if shown else None)
        self._point_to(early.fileno(), early.fileno())

    def keep(self, log: Path, verbose: bool) -> None:
        """From now on to a log file, what was caught before included.

        Args:
            log: appended to; its folder is made.
            verbose: whether to the screen too.
        """
        _flush()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._early.seek(0)
            file.write(self._early.read())
            file.flush()
            if not verbose:
                self._point_to(file.fileno(), file.fileno())
                return
        # A process of its own, which writes what it got also where this one is killed.
        self._tee = subprocess.Popen(["tee", "-a", str(log)], stdin=subprocess.PIPE, stdout=self._saved[0])
        self._point_to(self._tee.stdin.fileno(), self._tee.stdin.fileno())
        self._tee.stdin.close()

    def restore(self) -> None:
        """As it was before."""
        _flush()
        self._point_to(*self._saved)
        if self._tee:
            with suppress(subprocess.TimeoutExpired):  # a process that was left running still writes
                self._tee.wait(timeout=5)
        for number in self._saved:
            os.close(number)
        if self.screen.out is not None:
            self.screen.out.close()

    def _point_to(self, stdout: int, stderr: int) -> None:
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)


@contextmanager
def diverted() -> Iterator[Diverted]:
    """Catches stdout and stderr, at first in a temporary file, so that bad input leaves nothing behind."""
    _flush()
    with tempfile.TemporaryFile() as early:
        caught = Diverted(early)
        try:
            yield caught
        finally:
            caught.restore()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
