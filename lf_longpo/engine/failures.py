"""The failures of a run, in a file of their own."""

import re
import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from lf_longpo.errors import CallFailed
from lf_longpo.files.journal import Journal, Row

FAILURES = "failures.jsonl"


def cause_of(reason: str) -> str:
    """A reason without its numbers, so that failures of the same kind count together."""
    return re.sub(r"\d+", "N", reason)


class Causes:
    """Counts reasons of failures by cause, and keeps an example of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str) -> None:
        """Counts a reason."""
        cause = cause_of(reason)
        self._counts[cause] += 1
        self._examples.setdefault(cause, reason)

    def most_frequent(self) -> tuple[str, int]:
        """A reason of the most frequent cause, and its number; empty without reasons."""
        cause, times = max(self._counts.items(), key=lambda item: item[1], default=("", 0))
        return self._examples.get(cause, ""), times


class Failures:
    """What failed in this start of a run and why, as JSONL.

    Args:
        path: the file; it is there only where something failed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._journal: Journal | None = None
        self._causes = Causes()

    def clear(self) -> None:
        """Removes the failures of earlier starts: failed work is retried."""
        self._path.unlink(missing_ok=True)

    def record(self, id: str, error: Exception) -> None:
        """Writes one failure. Errors other than `CallFailed` are not expected; they are written with their traceback.

        Args:
            id: of the question or response that failed.
            error: why.
        """
        row = {"id": id, "reason": str(error) or type(error).__name__}
        if (last_words := getattr(error, "last_words", None)) is not None:
            row["last_words"] = last_words
        if not isinstance(error, CallFailed):
            row |= {"kind": type(error).__name__, "traceback": "".join(traceback.format_exception(error))}
        self.add([row])

    def add(self, rows: Iterable[Row]) -> None:
        """Writes failures as they were recorded, here or by another run."""
        for row in rows:
            if self._journal is None:
                self._journal = Journal(self._path)
            self._journal.append(row)
            self._causes.add(str(row["reason"]))

    def most_frequent(self) -> tuple[str, int]:
        """A reason of the most frequent cause in this start, and its number; empty without failures."""
        return self._causes.most_frequent()

    def close(self) -> None:
        """Closes the file."""
        if self._journal:
            self._journal.close()
