"""Output of a training: a few lines for the user on the screen, everything that libraries print in a log file."""

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
        out: the stream to write to; None for a process that prints nothing.
    """

    def __init__(self, out: TextIO | None) -> None:
        self.out = out

    def note(self, text: str) -> None:
        """Prints one line."""
        if self.out is not None:
            print(f"longpo train: {text}", file=self.out, flush=True)


class Diverted:
    """Redirects stdout and stderr by file descriptor, so that native code and child processes are included.

    Attributes:
        screen: the original stdout.
    """

    def __init__(self, early: BinaryIO) -> None:
        self._early = early
        self._tee: subprocess.Popen[bytes] | None = None
        self._saved = os.dup(1), os.dup(2)
        # Only one of several processes reports.
        shown = os.environ.get("RANK", "0") == "0"
        self.screen = Screen(os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace") if shown else None)
        self._point_to(early.fileno(), early.fileno())

    def keep(self, log: Path, verbose: bool) -> None:
        """Sends the output to a log file, including what was printed before.

        Args:
            log: appended to; its folder is created.
            verbose: whether the output also goes to the screen.
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
        # tee is a separate process: it writes what it received even if this process is killed.
        read_end, write_end = os.pipe()
        self._tee = subprocess.Popen(["tee", "-a", str(log)], stdin=read_end, stdout=self._saved[0])
        self._point_to(write_end, write_end)
        os.close(read_end)
        os.close(write_end)

    def restore(self) -> None:
        """Restores stdout and stderr."""
        _flush()
        self._point_to(*self._saved)
        if self._tee:
            with suppress(subprocess.TimeoutExpired):  # a child process that is still running writes to it
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
    """Redirects stdout and stderr for a block, at first to a temporary file, so that bad input creates no log."""
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
