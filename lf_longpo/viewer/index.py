"""An index of pairs in SQLite: one line per pair with the byte offset of its row, without its context.

A thread reads the file; its first pairs are visible at once, even if the file has gigabytes. When the file grows, as
during a run, the thread reads the new pairs. When the file is replaced, as at the end of a run, all pairs are read
again and keep their numbers, so that open pages stay valid. The index stays in the user's cache for the next start.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lf_longpo.data.review import PAIR, SIDES, Decision, pair_digest, response_of, text_of
from lf_longpo.errors import UserError, first_line
from lf_longpo.files.cache_folder import cache_folder
from lf_longpo.files.journal import Row, row_of_line, rows_with_offsets
from lf_longpo.run_folder.pair_sets import PairSet, prompt_parts
from lf_longpo.text.differences import whole_letters

# The number of rows per commit; rows are visible after their commit.
_BATCH = 100
# The number of characters of a response that can be searched, and of a question that lists show.
_SEARCHED, _QUESTION = 20_000, 300
# Changes when the tables or their contents change; then indexes of earlier versions are not used.
_LAYOUT = 4
# Seconds that a page waits for new pairs; a few are read in this time.
_PATIENCE = 1.0
# Seconds after its last change until an index is removed.
_KEPT = 14 * 24 * 3600

SORTS = {
    "number": ("order of the file", "byte_offset"),
    "gap_down": ("largest reward gap", "gap DESC, number"),
    "gap_up": ("smallest reward gap", "gap, number"),
    "longer": ("chosen longer than rejected", "chosen_characters - rejected_characters DESC, number"),
    "shorter": ("chosen shorter than rejected", "chosen_characters - rejected_characters, number"),
    "prompt_down": ("longest prompt", "prompt_characters DESC, number"),
}
"""The orders of a list: label and SQL."""
STATES = ("all", "undecided", "accept", "reject", "edit")


class PairLine(NamedTuple):
    """What a list shows of a pair."""

    number: int
    """The position in the file, from 1. If the file changes, known pairs keep their numbers; new ones follow."""
    byte_offset: int
    """The offset of its row in the file."""
    digest: str
    id: str
    question: str
    gap: float | None
    chosen_reward: float | None
    rejected_reward: float | None
    chosen_characters: int
    rejected_characters: int
    prompt_characters: int
    decision: str | None


class PairFilter(NamedTuple):
    """The pairs that a list shows, and their order."""

    text: str = ""
    """Text in the id, the question or a response."""
    state: str = "all"
    """One of `STATES`."""
    least_gap: float | None = None
    most_gap: float | None = None
    sort: str = "number"
    """One of `SORTS`."""


class PairIndex:
    """The index of a set of pairs.

    Args:
        pairs: the file and its columns.
        decisions: the review decisions so far, by digest.
    """

    def __init__(self, pairs: PairSet, decisions: dict[str, Decision]) -> None:
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
        with self._open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS pairs (number INTEGER PRIMARY KEY, byte_offset INTEGER, digest TEXT,"
                " id TEXT, question TEXT, gap REAL, chosen_reward REAL, rejected_reward REAL,"
                " chosen_characters INTEGER, rejected_characters INTEGER, prompt_characters INTEGER, searched TEXT)"
            )
            db.execute("CREATE TABLE IF NOT EXISTS read (inode INTEGER, size INTEGER, changed INTEGER)")
            db.execute("CREATE TABLE IF NOT EXISTS decisions (digest TEXT PRIMARY KEY, decision TEXT)")
            db.execute("DELETE FROM decisions")
            db.executemany(
                "INSERT INTO decisions VALUES (?, ?)",
                [(digest, decision.verdict) for digest, decision in decisions.items()],
            )

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
        with self._open() as db:
            return db.execute("SELECT inode, size, changed FROM read").fetchone() == _state_of(self._pair_set.path)

    def counts(self) -> dict[str, int]:
        """The number of pairs by decision, and of all pairs."""
        with self._open() as db:
            rows = db.execute(
                "SELECT COALESCE(decision, 'undecided'), COUNT(*) FROM pairs LEFT JOIN decisions USING (digest)"
                " GROUP BY 1"
            ).fetchall()
        return {"all": sum(number for _, number in rows), **dict(rows)}

    def numbers(self, pair_filter: PairFilter) -> list[int]:
        """The numbers of the pairs that pass a pair_filter, in its order."""
        conditions, values = _conditions(pair_filter)
        with self._open() as db:
            rows = db.execute(
                "SELECT number FROM pairs LEFT JOIN decisions USING (digest)"
                f" WHERE {conditions} ORDER BY {SORTS[pair_filter.sort][1]}",
                values,
            )
            return [number for (number,) in rows]

    def numbers_of_question(self, question_id: str) -> list[int]:
        """The numbers of a question's pairs, in the order of the file. Their ids begin with the question's id."""
        further = f"{whole_letters(question_id)}#"
        with self._open() as db:
            rows = db.execute(
                "SELECT number FROM pairs WHERE id = ? OR substr(id, 1, ?) = ? ORDER BY byte_offset",
                (further[:-1], len(further), further),
            )
            return [number for (number,) in rows]

    def lines(self, numbers: list[int]) -> list[PairLine]:
        """The lines of the pairs with these numbers, in the order of the numbers."""
        columns = ", ".join(PairLine._fields)
        with self._open() as db:
            rows = db.execute(
                f"SELECT {columns} FROM pairs LEFT JOIN decisions USING (digest)"
                f" WHERE number IN ({', '.join('?' * len(numbers))})",
                numbers,
            )
            found = {line.number: line for line in map(PairLine._make, rows)}
        return [found[number] for number in numbers if number in found]

    def row(self, line: PairLine) -> Row | None:
        """The pair of a line; None if the file has changed since it was indexed."""
        if not self._pair_set.path.is_file():
            return None
        with self._pair_set.path.open("rb") as file:
            file.seek(line.byte_offset)
            row = row_of_line(file.readline(), {self._pair_set.columns[name] for name in PAIR})
        return row if row is not None and pair_digest(row, self._pair_set.columns) == line.digest else None

    def decide(self, digest: str, decision: Decision | None) -> None:
        """Updates the decision that lists show."""
        with self._open() as db:
            if decision:
                db.execute("INSERT OR REPLACE INTO decisions VALUES (?, ?)", (digest, decision.verdict))
            else:
                db.execute("DELETE FROM decisions WHERE digest = ?", (digest,))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
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
        with self._open() as db, path.open("rb") as file:
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
            db.execute("DELETE FROM read")
            db.execute("INSERT INTO read VALUES (?, ?, ?)", state)

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
    db.executemany("INSERT OR REPLACE INTO pairs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", batch)
    db.commit()
    batch.clear()


def _pair(row: Row, columns: dict[str, str]) -> tuple[Any, ...]:
    responses = [response_of(row[columns[name]], columns.get("content_tag")) for name in SIDES]
    rewards: list[Any] = [row.get(f"{name}_reward") for name in SIDES]
    rated = all(isinstance(reward, int | float) and isfinite(reward) for reward in rewards)
    question = question_text(row, columns)
    return (
        pair_digest(row, columns),
        whole_letters(str(row.get("id", ""))),
        whole_letters(question[:_QUESTION]),
        rewards[0] - rewards[1] if rated else None,
        *(rewards if rated else (None, None)),
        *map(len, responses),
        sum(len(part.text) for part in prompt_parts(row, columns)),
        whole_letters("\n".join((str(row.get("id", "")), question, *(text[:_SEARCHED] for text in responses)))),
    )


def question_text(row: Row, columns: dict[str, str]) -> str:
    """The question of a pair; if its row has none, the end of its prompt."""
    for name in ("input", "question", columns.get("query", "query")):
        if name not in columns.values() or name == columns.get("query"):
            text = text_of(row.get(name))
            if text.strip():
                return text
    return text_of(row[columns["prompt"]], columns.get("content_tag"))[-_QUESTION:]


def _conditions(pair_filter: PairFilter) -> tuple[str, list[Any]]:
    conditions, values = ["1"], list[Any]()
    if pair_filter.text:
        escaped = pair_filter.text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        conditions.append(r"searched LIKE ? ESCAPE '\'")
        values.append(f"%{escaped}%")
    if pair_filter.state != "all":
        conditions.append("COALESCE(decision, 'undecided') = ?")
        values.append(pair_filter.state)
    for value, comparison in ((pair_filter.least_gap, ">="), (pair_filter.most_gap, "<=")):
        if value is not None:
            conditions.append(f"gap {comparison} ?")
            values.append(value)
    return " AND ".join(conditions), values
