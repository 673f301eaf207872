"""The results of a run's finished calls, so that no call is made twice, whenever the process is killed.

One SQLite file in write-ahead mode: a result is written before it is used, and a kill at any point leaves the file
readable.
"""

import hashlib
import json
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.models.sqlite_errors import plain_sqlite_errors

CALLS = "calls.sqlite"
CUT_OFF = "length"
"""The `finish_reason` of a reply that reached its limit of new tokens or the model's window."""


class CallKey(NamedTuple):
    """Identifies a call of a run: stage, question, round (or sample, or batch) and a hash of the request."""

    stage: str
    question: str
    round: int
    request: str


def request_hash(identity: dict[str, Any]) -> str:
    """A hash of plain data, 32 hex digits, the same in every process."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


class StageTotals(NamedTuple):
    """Calls, tokens and cost of a stage's finished calls, over every start of the run."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """At the prices of their time."""
    cached_tokens: int = 0
    """Prompt tokens that the server had in its prefix cache."""
    truncated: int = 0
    """Calls with a reply that was cut off at its limit of new tokens."""

    def plus(self, other: "StageTotals") -> "StageTotals":
        """The sums of both."""
        return StageTotals(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
            self.cached_tokens + other.cached_tokens,
            self.truncated + other.truncated,
        )


def was_truncated(result: dict[str, Any]) -> bool:
    """Whether a call's reply was cut off. A limit of one token, as for token probabilities, does not count."""
    return result.get("finish_reason") == CUT_OFF and result["completion_tokens"] > 1


class CallCache:
    """Results of finished calls, by key.

    Args:
        path: the SQLite file; None keeps everything in memory. `open` creates it, so that a run that cannot start
            leaves no file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._opened: sqlite3.Connection | None = None

    def sibling(self, name: str) -> Path | None:
        """Path of a file of that name in the same folder; None if the cache is in memory."""
        return self._path and self._path.with_name(name)

    def open(self) -> None:
        """Opens the file and creates it if it is missing.

        Raises:
            UserError: the file exists but is not a call cache, or cannot be written.
        """
        with self._plain_errors():
            self._opened = db = sqlite3.connect(self._path or ":memory:", isolation_level=None)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS calls (stage TEXT, question TEXT, round INTEGER, request TEXT, result TEXT,"
                " prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL NOT NULL DEFAULT 0,"
                " cached_tokens INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0,"
                " truncated INTEGER NOT NULL DEFAULT 0,"
                " PRIMARY KEY (stage, question, round, request)) WITHOUT ROWID"
            )
            columns = {row[1] for row in db.execute("PRAGMA table_info(calls)")}
            later = {"cost": "REAL", "cached_tokens": "INTEGER", "seconds": "REAL", "truncated": "INTEGER"}
            for name, kind in later.items():
                if name not in columns:  # a cache of an earlier version
                    db.execute(f"ALTER TABLE calls ADD COLUMN {name} {kind} NOT NULL DEFAULT 0")
            if "truncated" not in columns:
                db.execute(
                    "UPDATE calls SET truncated = 1 WHERE completion_tokens > 1 AND instr(result, ?)",
                    (f'"finish_reason": "{CUT_OFF}"',),
                )

    def get(self, key: CallKey) -> dict[str, Any] | None:
        """The result of a finished call, or None."""
        with self._plain_errors():
            row = self._db.execute(
                "SELECT result FROM calls WHERE stage=? AND question=? AND round=? AND request=?", key
            ).fetchone()
            return json.loads(row[0]) if row else None

    def put(self, key: CallKey, result: dict[str, Any], cost: float = 0.0, seconds: float = 0.0) -> None:
        """Keeps a result with its cost, its time, its numbers of tokens if it has them, and whether it was cut off."""
        prompt, new, cached = (result.get(f"{name}_tokens", 0) for name in ("prompt", "completion", "cached"))
        with self._plain_errors():
            self._db.execute(
                "INSERT OR REPLACE INTO calls (stage, question, round, request, result, prompt_tokens,"
                " completion_tokens, cost, cached_tokens, seconds, truncated)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, json.dumps(result), prompt, new, cost, cached, seconds, was_truncated(result)),
            )

    def totals(self) -> dict[str, StageTotals]:
        """Calls, tokens and cost by stage, over every start of the run."""
        with self._plain_errors():
            rows = self._db.execute(
                "SELECT stage, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), SUM(cost), SUM(cached_tokens),"
                " SUM(truncated) FROM calls GROUP BY stage"
            )
            return {stage: StageTotals(*sums) for stage, *sums in rows}

    def close(self) -> None:
        """Closes the file if it is open."""
        if self._opened:
            self._opened.close()

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._opened, "open() comes first"
        return self._opened

    def _plain_errors(self) -> AbstractContextManager[None]:
        return plain_sqlite_errors(self._path, "the journals keep the finished rounds")
