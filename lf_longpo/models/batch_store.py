"""The requests that were submitted to a provider's Batch API, and their replies.

A later start of the run collects the replies from here and pays nothing again.
"""

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.models.sqlite_errors import plain_sqlite_errors

BATCHES = "batches.sqlite"


class SubmittedRequest(NamedTuple):
    """A request that was submitted."""

    file: str
    """Id of the uploaded file that holds it."""
    reply: str | None
    """Its line in the output of the batch; None before it has arrived."""


class Upload(NamedTuple):
    """An uploaded file of requests; times are in seconds since 1970."""

    batch: str | None
    """Id of the batch that was created from it; None if there is none or its id is unknown."""
    since: float
    """Time of the upload."""
    tried: float
    """Time of the last attempt to create a batch; 0 if there was none."""


class BatchStore:
    """One SQLite file, created on first use.

    Args:
        path: the file; None keeps everything in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._opened: sqlite3.Connection | None = None

    def find(self, request: str) -> SubmittedRequest | None:
        """A request by its id; None if it has to be submitted."""
        rows = self._run("SELECT file, reply FROM requests WHERE request=?", request)
        return SubmittedRequest(*rows[0]) if rows else None

    def upload(self, file: str) -> Upload:
        """An uploaded file by its id."""
        return Upload(*self._run("SELECT batch, since, tried FROM files WHERE file=?", file)[0])

    def replies(self, file: str) -> tuple[int, int]:
        """Number of requests of a file that have a reply, and number of all its requests."""
        arrived, submitted = self._run("SELECT COUNT(reply), COUNT(*) FROM requests WHERE file=?", file)[0]
        return arrived, submitted

    def uploaded(self, file: str, requests: Iterable[str]) -> None:
        """Notes that a file with these requests was uploaded; nothing is paid yet."""
        self._run("INSERT INTO files (file, since, tried) VALUES (?, ?, 0)", file, time.time())
        rows = ((request, file) for request in requests)
        self._run_many("INSERT OR REPLACE INTO requests (request, file) VALUES (?, ?)", rows)

    def tries(self, file: str) -> None:
        """Notes an attempt to create a batch."""
        self._run("UPDATE files SET tried=? WHERE file=?", time.time(), file)

    def began(self, file: str, batch: str | None) -> None:
        """Notes the batch that was created from a file; None if it failed and another one is needed."""
        self._run("UPDATE files SET batch=?, tried=0 WHERE file=?", batch, file)

    def came_back(self, file: str, replies: Iterable[tuple[str, str]]) -> None:
        """Keeps output lines by request id, except of requests that were submitted again in another file."""
        rows = ((reply, request, file) for request, reply in replies)
        self._run_many("UPDATE requests SET reply=? WHERE request=? AND file=?", rows)

    def ended(self, file: str) -> None:
        """Notes that a batch has ended; requests without a reply have to be submitted again."""
        self._run("DELETE FROM requests WHERE file=? AND reply IS NULL", file)

    def forget(self, request: str) -> None:
        """Notes that a request has to be submitted again."""
        self._run("DELETE FROM requests WHERE request=?", request)

    def close(self) -> None:
        """Closes the file if it is open."""
        if self._opened:
            self._opened.close()
        self._opened = None

    def _run(self, statement: str, *values: str | float | None) -> list[Any]:
        with plain_sqlite_errors(self.path, "and the replies it waits for are paid again"):
            return self._db().execute(statement, values).fetchall()

    def _run_many(self, statement: str, rows: Iterable[tuple[str, ...]]) -> None:
        with plain_sqlite_errors(self.path, "and the replies it waits for are paid again"):
            self._db().execute("BEGIN")
            with self._db() as db:  # one transaction
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
