"""The failures of a run, in a file of their own."""

import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from lf_longpo.errors import CallFailed
from lf_longpo.files.journal import Journal, Row

FAILURES = "failures.jsonl"


class Failures:
    """What failed in this start of a run and why, as JSONL. Each start begins an empty file: failed work is retried.

    Args:
        path: the file; it is removed where nothing failed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        self._journal = Journal(path)

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
        self._journal.append(row)

    def carry_over(self, rows: Iterable[Row]) -> None:
        """Writes failures that other runs recorded."""
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
