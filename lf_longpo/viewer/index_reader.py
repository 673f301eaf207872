"""Reads a set of pairs into an index in SQLite: a row per pair with the byte offset of its line, without its context.

A thread reads the file; its first pairs are visible at once, even if the file has gigabytes. When the file grows, as
during a run, the thread reads the new pairs. When the file is replaced, as at the end of a run, all pairs are read
again and keep their numbers, so that open pages stay valid. The index stays in the user's cache for the next start.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

from lf_longpo.config import LongRewardGenerateConfig
from lf_longpo.data.pairs import question_of_pair
from lf_longpo.data.review import PAIR, SIDES, pair_digest, response_of
from lf_longpo.errors import UserError, first_line
from lf_longpo.files.cache_folder import cache_folder
from lf_longpo.files.journal import Row, row_of_line, rows_with_offsets
from lf_longpo.longreward.response_files import SCORES
from lf_longpo.longreward.scorer import DIMENSIONS
from lf_longpo.run_folder.pair_sets import PairSet, prompt_parts, question_text
from lf_longpo.text.differences import whole_letters
from lf_longpo.text.fitting import CUT_MARK
from lf_longpo.text.graphemes import whole_start
from lf_longpo.text.language import detect_language
from lf_longpo.text.thinking import split_thought

# The number of rows per commit; rows are visible after their commit.
_BATCH = 100
# The number of characters of a response that can be searched, and of a question that lists show.
_SEARCHED, _QUESTION = 20_000, 300
# The number of characters of a question that its language is detected from, and of a source that lists show.
_DETECTED, _SOURCE = 2_000, 80
# Where published data sets say where a question comes from.
_SOURCE_FIELDS = ("source", "dataset")
# SQLite's integers end here.
_MOST_INDEX = 2**63
# Changes when the tables or their contents change; then indexes of earlier versions are not used.
_LAYOUT = 5
# Seconds that a page waits for new pairs; a few are read in this time.
_PATIENCE = 1.0
# Seconds after its last change until an index is removed.
_KEPT = 14 * 24 * 3600
_COLUMNS = {
    "number": "INTEGER PRIMARY KEY",
    "byte_offset": "INTEGER",
    "digest": "TEXT",
    "id": "TEXT",
    "question_id": "TEXT",
    "question": "TEXT",
    "gap": "REAL",
    "chosen_reward": "REAL",
    "rejected_reward": "REAL",
    "chosen_characters": "INTEGER",
    "rejected_characters": "INTEGER",
    "prompt_characters": "INTEGER",
    "language": "TEXT",
    "source": "TEXT",
    "cut": "INTEGER",
    "thinking": "INTEGER",
    "chosen_index": "INTEGER",
    "rejected_index": "INTEGER",
    "searched": "TEXT",  # last: SQLite does not read what comes after the columns of a query
}
# The tables, except the pairs' one. `read` and `scores_read` say how far the files were read.
_TABLES = (
    "CREATE INDEX IF NOT EXISTS digests ON pairs (digest)",
    "CREATE INDEX IF NOT EXISTS question_ids ON pairs (question_id)",
    "CREATE INDEX IF NOT EXISTS kinds ON pairs (source, language, cut, thinking)",
    f"CREATE TABLE IF NOT EXISTS scores (idx TEXT PRIMARY KEY, {', '.join(f'{name} REAL' for name in DIMENSIONS)})",
    "CREATE TABLE IF NOT EXISTS scores_read (inode INTEGER, last INTEGER)",
    "CREATE TABLE IF NOT EXISTS read (inode INTEGER, size INTEGER, changed INTEGER)",
    "DROP TABLE IF EXISTS decisions",
    "CREATE TABLE decisions (digest TEXT PRIMARY KEY, decision TEXT, comment TEXT, reviewer TEXT)",
)


class IndexReader:
    """The file of an index, and the thread that fills it.

    Args:
        pairs: the file of pairs and its columns.
    """

    def __init__(self, pairs: PairSet) -> None:
        self._pair_set = pairs
        status = pairs.path.stat()
        state = f"{_LAYOUT} {pairs.path.absolute()} {status.st_size} {status.st_mtime_ns} {pairs.columns}"
        folder = cache_folder("views")
        self._path = folder / f"{hashlib.sha256(state.encode()).hexdigest()[:24]}.sqlite"
        for older in folder.glob("*.sqlite*"):
            if time.time() - older.stat().st_mtime > _KEPT:
                older.unlink(missing_ok=True)
        self._stopped = threading.Event()
        self._filling: threading.Thread | None = None
        self._starting = threading.Lock()
        self.fault = ""
        """Why the file could not be read to its end; empty if it could."""
        with self.open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
            db.execute(f"CREATE TABLE IF NOT EXISTS pairs ({columns})")
            for statement in _TABLES:
                db.execute(statement)

    def start(self) -> None:
        """Starts a thread that reads the file, unless the index is already complete."""
        with self._starting:
            if self.whole or self.fault or (self._filling and self._filling.is_alive()):
                return
            self._filling = threading.Thread(target=self._fill, daemon=True)
            self._filling.start()

    def refresh(self) -> None:
        """Reads the pairs that are new in the file. Returns after a moment, even if there are many."""
        before = self._filling
        self.start()
        if self._filling is not before and self._filling:
            self._filling.join(_PATIENCE)

    def stop(self) -> None:
        """Stops the reading."""
        self._stopped.set()
        if self._filling:
            self._filling.join()

    @property
    def whole(self) -> bool:
        """Whether the index has all pairs of the file as it is now."""
        with self.open() as db:
            return db.execute("SELECT inode, size, changed FROM read").fetchone() == _state_of(self._pair_set.path)

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """The index's file. What is written is committed at the end.

        Raises:
            UserError: the file cannot be used.
        """
        try:
            with closing(sqlite3.connect(self._path, timeout=30)) as db, db:
                yield db
        except sqlite3.OperationalError as error:  # a full disk
            fix = "free space there, or set XDG_CACHE_HOME to another folder"
            raise UserError(f"{self._path} cannot be used: {error}; {fix}") from None
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self._path} cannot be used: {error}; remove it") from None

    def _fill(self) -> None:
        try:
            self._read_all()
        except Exception as error:  # the page shows it
            self.fault = first_line(error)

    def _read_all(self) -> None:
        columns, path = self._pair_set.columns, self._pair_set.path
        state = _state_of(path)  # before reading: what is written meanwhile is read the next time
        with self.open() as db, path.open("rb") as file:
            db.execute("PRAGMA synchronous=OFF")  # after a crash, the index is built again
            begin = file.seek(self._end_of_known(db, file, state))
            numbers = _Numbers(db)
            if not begin:
                db.execute("DELETE FROM pairs")
            batch: list[tuple[Any, ...]] = []
            for count, (offset, row) in enumerate(rows_with_offsets(file, {columns[name] for name in PAIR}), 1):
                digest, *values = _pair(row, columns)
                number = numbers.next() if begin else numbers.of(digest)
                batch.append((number, begin + offset, digest, *values))
                if len(batch) == _BATCH or count in (1, 10):
                    _put(db, batch)
                    if self._stopped.is_set():
                        return
            _put(db, batch)
            self._read_scores(db)
            if self._stopped.is_set():
                return
            db.execute("DELETE FROM read")
            db.execute("INSERT INTO read VALUES (?, ?, ?)", state)

    def _read_scores(self, db: sqlite3.Connection) -> None:
        """Reads the judge's scores of the run's responses that are not in the index yet."""
        run = self._pair_set.run
        if run is None or not isinstance(run.config, LongRewardGenerateConfig):
            return
        path = run.path / SCORES
        inode, size, _ = _state_of(path)
        known, last = db.execute("SELECT inode, last FROM scores_read").fetchone() or (inode, 0)
        if not size or known != inode or last > size:
            last = 0
            db.execute("DELETE FROM scores")
        if not size:
            return
        with path.open("rb") as file:
            begin = file.seek(last)
            for count, (offset, row) in enumerate(rows_with_offsets(file, ("idx", "scores")), 1):
                last = begin + offset
                _put_scores(db, str(row["idx"]), row["scores"])
                if count % _BATCH == 0:
                    db.commit()  # decisions are written meanwhile
                    if self._stopped.is_set():
                        return
        db.execute("DELETE FROM scores_read")
        db.execute("INSERT INTO scores_read VALUES (?, ?)", (inode, last))

    def _end_of_known(self, db: sqlite3.Connection, file: BinaryIO, state: tuple[int, int, int]) -> int:
        """The offset after the pairs of the index, if the file begins with them; else 0."""
        read = db.execute("SELECT inode, size FROM read").fetchone() or (state[0], 0)
        last = db.execute("SELECT MAX(byte_offset), digest FROM pairs").fetchone()
        if last[0] is None or read[0] != state[0] or read[1] >= state[1]:
            return 0
        file.seek(last[0])
        line = file.readline()
        row = row_of_line(line, {self._pair_set.columns[name] for name in PAIR})
        if row is None or pair_digest(row, self._pair_set.columns) != last[1]:
            return 0
        return int(last[0]) + len(line)


class _Numbers:
    """Numbers for the pairs that are read: a pair that the index already has keeps its number."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._known: dict[str, list[int]] = {}
        self._last = 0
        for digest, number in db.execute("SELECT digest, number FROM pairs ORDER BY number DESC"):
            self._known.setdefault(digest, []).append(number)
            self._last = max(self._last, number)

    def of(self, digest: str) -> int:
        """The number of a pair with these texts, each number once; a new one if there is none."""
        return self._known[digest].pop() if self._known.get(digest) else self.next()

    def next(self) -> int:
        """A new number."""
        self._last += 1
        return self._last


def _state_of(path: Path) -> tuple[int, int, int]:
    """What changes when a file grows or is replaced: inode, bytes, nanoseconds; zeros if the file was removed."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return status.st_ino, status.st_size, status.st_mtime_ns


def _put(db: sqlite3.Connection, batch: list[tuple[Any, ...]]) -> None:
    db.executemany(f"INSERT OR REPLACE INTO pairs VALUES ({marks(_COLUMNS)})", batch)
    db.commit()
    batch.clear()


def _put_scores(db: sqlite3.Connection, idx: str, scores: Any) -> None:
    """Stores a response's scores. An idx of the published files has one more part before the question's id."""
    values = [scores.get(dimension) for dimension in DIMENSIONS] if isinstance(scores, dict) else [None]
    if not all(isinstance(value, int | float) for value in values):
        return
    places = f"({marks(('idx', *DIMENSIONS))})"
    db.execute(f"INSERT OR REPLACE INTO scores VALUES {places}", (idx, *values))
    if idx.count("-") > 1:
        db.execute(f"INSERT OR IGNORE INTO scores VALUES {places}", (idx.partition("-")[2], *values))


def _pair(row: Row, columns: dict[str, str]) -> tuple[Any, ...]:
    responses = [response_of(row[columns[name]], columns.get("content_tag")) for name in SIDES]
    rewards: list[Any] = [row.get(f"{name}_reward") for name in SIDES]
    rated = all(isinstance(reward, int | float) and isfinite(reward) for reward in rewards)
    question = question_text(row, columns)
    parts = prompt_parts(row, columns)
    indices: list[Any] = [row.get(f"{name}_index") for name in SIDES]
    return (
        pair_digest(row, columns),
        whole_letters(str(row.get("id", ""))),
        whole_letters(question_of_pair(row) or ""),
        whole_letters(question[: whole_start(question, _QUESTION)]),
        rewards[0] - rewards[1] if rated else None,
        *(rewards if rated else (None, None)),
        *map(len, responses),
        sum(len(part.text) for part in parts),
        detect_language(question[:_DETECTED]),
        whole_letters(next((row[name][:_SOURCE] for name in _SOURCE_FIELDS if isinstance(row.get(name), str)), "")),
        any(CUT_MARK in part.text for part in parts),
        any(split_thought(text).thought for text in responses),
        *(index if isinstance(index, int) and abs(index) < _MOST_INDEX else None for index in indices),
        whole_letters("\n".join((str(row.get("id", "")), question, *(text[:_SEARCHED] for text in responses)))),
    )


def marks(values: Collection[Any]) -> str:
    """A question mark for each value of an SQL statement."""
    return ", ".join("?" * len(values))
