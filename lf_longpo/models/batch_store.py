"""What was handed in to a provider's Batch API and what came back, so that a later start collects and pays nothing."""

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.models.sqlite_errors import plain_sqlite_errors

BATCHES = "batches.sqlite"


class Place(NamedTuple):
    """Where a request is."""

    file: str
    """The uploaded file that it stands in."""
    reply: str | None
    """Its line of the batch's output."""


class Upload(NamedTuple):
    """A file of requests; times in seconds since 1970."""

    batch: str | None
    """The batch that was created of it, where that is known."""
    since: float
    """When it was uploaded."""
    tried: float
    """When a batch was last asked for; 0 where none was."""


class BatchStore:
    """One SQLite file, made by its first use.

    Args:
        path: where; None for in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._opened: sqlite3.Connection | None = None

    def place(self, request: str) -> Place | None:
        """Where a request is, by its id; None where it has to be handed in."""
        rows = self._run("SELECT file, reply FROM requests WHERE request=?", request)
        return Place(*rows[0]) if rows else None

    def upload(self, file: str) -> Upload:
        """What is known of an uploaded file."""
        return Upload(*self._run("SELECT batch, since, tried FROM files WHERE file=?", file)[0])

    def replies(self, file: str) -> tuple[int, int]:
        """How many requests of a file have a reply, and how many there are."""
        return self._run("SELECT COUNT(reply), COUNT(*) FROM requests WHERE file=?", file)[0]

    def uploaded(self, file: str, requests: Iterable[str]) -> None:
        """A file with these requests is at the provider; nothing is paid yet."""
        self._run("INSERT INTO files (file, since, tried) VALUES (?, ?, 0)", file, time.time())
        rows = ((one, file) for one in requests)
        self._run_many("INSERT OR REPLACE INTO requests (request, file) VALUES (?, ?)", rows)

    def tries(self, file: str) -> None:
        """A batch is being asked for."""
        self._run("UPDATE files SET tried=? WHERE file=?", time.time(), file)

    def began(self, file: str, batch: str | None) -> None:
        """A batch was created of a file; None: it came to nothing and another one is needed."""
        self._run("UPDATE files SET batch=?, tried=0 WHERE file=?", batch, file)

    def came_back(self, file: str, replies: Iterable[tuple[str, str]]) -> None:
        """Output lines by request; a request that was handed in again since stands in another file."""
        rows = ((reply, request, file) for request, reply in replies)
        self._run_many("UPDATE requests SET reply=? WHERE request=? AND file=?", rows)

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

    def _run(self, statement: str, *values: str | float | None) -> list[Any]:
        with plain_sqlite_errors(self.path, "and what it waits for is paid again"):
            return self._db().execute(statement, values).fetchall()

    def _run_many(self, statement: str, rows: Iterable[tuple[str, ...]]) -> None:
        with plain_sqlite_errors(self.path, "and what it waits for is paid again"):
            self._db().execute("BEGIN")
            with self._db() as db:  # all of it or nothing
                db.executemany(statement, rows)

    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = sqlite3.connect(self.path or ":memory:", isolation_level=None)
            self._opened.execute("PRAGMA journal_mode=WAL")
            self._opened.execute(
                "CREATE TABLE IF NOT EXISTS files (file TEXT PRIMARY KEY, batch TEXT, since REAL, tried REAL)"
            )
            self._opened.execute(
                "CREATE TABLE IF NOT EXISTS requests (request TEXT PRIMARY KEY, file TEXT, reply TEXT) WITHOUT ROWID"
            )
            self._opened.execute("CREATE INDEX IF NOT EXISTS of_file ON requests (file)")
        return self._opened
