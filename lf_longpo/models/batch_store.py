"""What was handed in to a provider's Batch API and what came back, so that a later start collects and pays nothing."""

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lf_longpo.errors import UserError

BATCHES = "batches.sqlite"


class Place(NamedTuple):
    """Where a request is."""

    file: str
    """The uploaded file that it stands in."""
    reply: str | None
    """Its line of the batch's output."""


class Upload(NamedTuple):
    """A file of requests."""

    batch: str | None
    """The batch that was created of it, where that is known."""
    since: float
    """When it was uploaded, in seconds since 1970."""


class BatchStore:
    """One SQLite file, made by its first use.

    Args:
        path: where; None for in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._opened: sqlite3.Connection | None = None

    def place(self, request: str) -> Place | None:
        """Where a request is, by its id; None where it has to be handed in."""
        row = self._run("SELECT file, reply FROM requests WHERE request=?", request).fetchone()
        return Place(*row) if row else None

    def upload(self, file: str) -> Upload:
        """What is known of an uploaded file."""
        return Upload(*self._run("SELECT batch, since FROM files WHERE file=?", file).fetchone())

    def uploaded(self, file: str, requests: Iterable[str]) -> None:
        """A file with these requests is at the provider; nothing is paid yet."""
        self._run("BEGIN")
        self._run("INSERT INTO files VALUES (?, NULL, ?)", file, time.time())
        for request in requests:
            self._run("INSERT OR REPLACE INTO requests VALUES (?, ?, NULL)", request, file)
        self._run("COMMIT")

    def began(self, file: str, batch: str | None) -> None:
        """A batch was created of a file; None: it came to nothing and another one is needed."""
        self._run("UPDATE files SET batch=? WHERE file=?", batch, file)

    def came_back(self, replies: Iterable[tuple[str, str]]) -> None:
        """Output lines by request."""
        self._run("BEGIN")
        for request, reply in replies:
            self._run("UPDATE requests SET reply=? WHERE request=?", reply, request)
        self._run("COMMIT")

    def ended(self, file: str) -> None:
        """A batch brings no more; requests without a reply have to be handed in again."""
        self._run("DELETE FROM requests WHERE file=? AND reply IS NULL", file)

    def forget(self, request: str) -> None:
        """A request has to be handed in again."""
        self._run("DELETE FROM requests WHERE request=?", request)

    def close(self) -> None:
        """Closes the file, if it was opened."""
        if self._opened:
            self._opened.close()
        self._opened = None

    def _run(self, statement: str, *values: str | float | None) -> sqlite3.Cursor:
        try:
            return self._db().execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self._path} cannot be used ({error}); mend that or move it away; what it waits for is paid again"
            ) from None

    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = sqlite3.connect(self._path or ":memory:", isolation_level=None)
            self._opened.execute("PRAGMA journal_mode=WAL")
            self._opened.execute("CREATE TABLE IF NOT EXISTS files (file TEXT PRIMARY KEY, batch TEXT, since REAL)")
            self._opened.execute(
                "CREATE TABLE IF NOT EXISTS requests (request TEXT PRIMARY KEY, file TEXT, reply TEXT) WITHOUT ROWID"
            )
        return self._opened
