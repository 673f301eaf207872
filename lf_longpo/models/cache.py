"""The run's memory of finished calls: nothing that came back is asked for twice, whenever the process dies.

One SQLite file in write-ahead mode: a result is in it before anybody uses the result, and a kill at any point leaves
it readable.
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
"""The `finish_reason` of a reply that met the most tokens it may have, or the model's window."""


class CallKey(NamedTuple):
    """Which call of a run: its stage, question, round (or sample, or batch) and a hash of all that it asks."""

    stage: str
    question: str
    round: int
    request: str


def request_hash(identity: dict[str, Any]) -> str:
    """A short hash of plain data, the same in every process."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


class StageTotals(NamedTuple):
    """What all finished calls of a stage took, over every start of the run."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """At the prices of their time."""
    cached_tokens: int = 0
    """Prompt tokens that the server had in its prefix cache."""
    truncated: int = 0
    """Calls whose reply was cut off at its most tokens."""

    def plus(self, other: "StageTotals") -> "StageTotals":
        """Both together."""
        return StageTotals(*(mine + more for mine, more in zip(self, other, strict=True)))


def was_truncated(result: dict[str, Any]) -> bool:
    """Whether a call's reply was cut off; one token is all that is asked for where probabilities are."""
    return result.get("finish_reason") == CUT_OFF and result["completion_tokens"] > 1


class CallCache:
    """Results of finished calls, by key.

    Args:
        path: the SQLite file, or None for one in memory. It is made by `open`, so that a run which cannot start leaves
            nothing behind.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def beside(self, name: str) -> Path | None:
        """Where a file of that name lies beside this one; None for one in memory."""
        return self._path and self._path.with_name(name)

    def open(self) -> None:
        """Opens the file, made where it is missing.

        Raises:
            UserError: the file is there but is no call cache, or cannot be written.
        """
        with self._plain_errors():
            self._db = sqlite3.connect(self._path or ":memory:", isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS calls (stage TEXT, question TEXT, round INTEGER, request TEXT, result TEXT,"
                " prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL NOT NULL DEFAULT 0,"
                " cached_tokens INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0,"
                " truncated INTEGER NOT NULL DEFAULT 0,"
                " PRIMARY KEY (stage, question, round, request)) WITHOUT ROWID"
            )
            columns = {row[1] for row in self._db.execute("PRAGMA table_info(calls)")}
            later = {"cost": "REAL", "cached_tokens": "INTEGER", "seconds": "REAL", "truncated": "INTEGER"}
            for name, kind in later.items():
                if name not in columns:  # a cache from before these were kept
                    self._db.execute(f"ALTER TABLE calls ADD COLUMN {name} {kind} NOT NULL DEFAULT 0")
            if "truncated" not in columns:
                self._db.execute(
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
        """Keeps a result and what it took: its numbers of tokens, where it has them, and whether it was cut off."""
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
        """Closes the file, if it was opened."""
        if self._db:
            self._db.close()

    def _plain_errors(self) -> AbstractContextManager[None]:
        return plain_sqlite_errors(self._path, "the journals keep finished rounds")
