"""What lists are made of: a line a pair, in SQLite, and where its row stands in the file; no context is kept.

A file of gigabytes is read once, in a thread of its own, while its first pairs are looked at already. The index stays
in the user's cache, so the next opening finds it.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import isfinite
from typing import Any, NamedTuple

from lf_longpo.data.review import PAIR, SIDES, Decision, pair_digest, response_of, text_of
from lf_longpo.errors import UserError, first_line
from lf_longpo.files.cache_folder import cache_folder
from lf_longpo.files.journal import Row, parsed, placed_rows
from lf_longpo.run_folder.pair_sets import Viewed, prompt_of
from lf_longpo.text.differences import whole_letters

# Rows that become visible at once; the first ones soon.
_BATCH = 100
# Characters of a response that can be searched, and of a question that lists show.
_SEARCHED, _QUESTION = 20_000, 300
_LAYOUT = 1
# Seconds that an index is kept which nobody wrote to.
_KEPT = 14 * 24 * 3600

SORTS = {
    "number": ("as in the file", "number"),
    "gap_down": ("largest gap first", "gap DESC, number"),
    "gap_up": ("smallest gap first", "gap, number"),
    "longer": ("chosen longer than rejected first", "chosen_characters - rejected_characters DESC, number"),
    "shorter": ("chosen shorter than rejected first", "chosen_characters - rejected_characters, number"),
    "prompt_down": ("longest prompt first", "prompt_characters DESC, number"),
}
"""Orders of a list: what people call it, and SQL."""
STATES = ("all", "undecided", "accept", "reject", "edit")


class Line(NamedTuple):
    """What a list shows of a pair."""

    number: int
    """From 1, as in the file."""
    place: int
    """Byte of the file at which it begins."""
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


class Wanted(NamedTuple):
    """Which pairs a list shows, and in which order."""

    text: str = ""
    """In the question or a response."""
    state: str = "all"
    least_gap: float | None = None
    most_gap: float | None = None
    sort: str = "number"


class PairIndex:
    """The pairs of a file.

    Args:
        viewed: the file and its columns.
        decisions: what was decided about them so far, by digest.
    """

    def __init__(self, viewed: Viewed, decisions: dict[str, Decision]) -> None:
        self._viewed = viewed
        known = viewed.path.stat()
        state = f"{_LAYOUT} {viewed.path.absolute()} {known.st_size} {known.st_mtime_ns} {viewed.columns}"
        folder = cache_folder("views")
        self._path = folder / f"{hashlib.sha256(state.encode()).hexdigest()[:24]}.sqlite"
        for older in folder.glob("*.sqlite*"):
            if time.time() - older.stat().st_mtime > _KEPT:
                older.unlink(missing_ok=True)
        self._stopped = threading.Event()
        self._filling: threading.Thread | None = None
        self.fault = ""
        """Why the file could not be read to its end."""
        with self._open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS pairs (number INTEGER PRIMARY KEY, place INTEGER, digest TEXT, id TEXT,"
                " question TEXT, gap REAL, chosen_reward REAL, rejected_reward REAL, chosen_characters INTEGER,"
                " rejected_characters INTEGER, prompt_characters INTEGER, searched TEXT)"
            )
            db.execute("CREATE TABLE IF NOT EXISTS whole (told INTEGER)")
            db.execute("CREATE TABLE IF NOT EXISTS decisions (digest TEXT PRIMARY KEY, decision TEXT)")
            db.execute("DELETE FROM decisions")
            db.executemany(
                "INSERT INTO decisions VALUES (?, ?)", [(digest, one.verdict) for digest, one in decisions.items()]
            )

    def start(self) -> None:
        """Reads the file, where that was not done before, in a thread of its own; the first pairs are there soon."""
        if not self.whole:
            self._filling = threading.Thread(target=self._fill, daemon=True)
            self._filling.start()

    def stop(self) -> None:
        """Ends the reading."""
        self._stopped.set()
        if self._filling:
            self._filling.join()

    @property
    def whole(self) -> bool:
        """Whether all pairs are there."""
        with self._open() as db:
            return db.execute("SELECT 1 FROM whole").fetchone() is not None

    def counts(self) -> dict[str, int]:
        """Pairs by decision, and in all."""
        with self._open() as db:
            rows = db.execute(
                "SELECT COALESCE(decision, 'undecided'), COUNT(*) FROM pairs LEFT JOIN decisions USING (digest)"
                " GROUP BY 1"
            ).fetchall()
        return {"all": sum(number for _, number in rows), **dict(rows)}

    def numbers(self, wanted: Wanted) -> list[int]:
        """The numbers of the wanted pairs, in order."""
        conditions, values = _conditions(wanted)
        with self._open() as db:
            rows = db.execute(
                "SELECT number FROM pairs LEFT JOIN decisions USING (digest)"
                f" WHERE {conditions} ORDER BY {SORTS[wanted.sort][1]}",
                values,
            )
            return [number for (number,) in rows]

    def lines(self, numbers: list[int]) -> list[Line]:
        """What lists show of these pairs, in that order."""
        columns = ", ".join(Line._fields)
        with self._open() as db:
            rows = db.execute(
                f"SELECT {columns} FROM pairs LEFT JOIN decisions USING (digest)"
                f" WHERE number IN ({', '.join('?' * len(numbers))})",
                numbers,
            )
            found = {line.number: line for line in map(Line._make, rows)}
        return [found[number] for number in numbers if number in found]

    def row(self, line: Line) -> Row | None:
        """The pair itself; None where another one stands in its place, since the file was written anew."""
        with self._viewed.path.open("rb") as file:
            file.seek(line.place)
            row = parsed(file.readline(), {self._viewed.columns[name] for name in PAIR})
        return row if row is not None and pair_digest(row, self._viewed.columns) == line.digest else None

    def decide(self, digest: str, decision: Decision | None) -> None:
        """Takes a decision over into the lists."""
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
        except Exception as error:  # told on the page, since nobody looks after the thread
            self.fault = first_line(error)

    def _read_all(self) -> None:
        with self._open() as db:
            db.execute("PRAGMA synchronous=OFF")  # of a crash nothing is left but work to be done again
            db.execute("DELETE FROM pairs")
            batch: list[tuple[Any, ...]] = []
            columns = self._viewed.columns
            with self._viewed.path.open("rb") as lines:
                rows = placed_rows(lines, {columns[name] for name in PAIR})
                for number, (place, row) in enumerate(rows, 1):
                    batch.append((number, place, *_pair(row, columns)))
                    if len(batch) == _BATCH or number in (1, 10):
                        _put(db, batch)
                        if self._stopped.is_set():
                            return
            _put(db, batch)
            db.execute("INSERT INTO whole VALUES (1)")


def _put(db: sqlite3.Connection, batch: list[tuple[Any, ...]]) -> None:
    db.executemany("INSERT OR REPLACE INTO pairs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", batch)
    db.commit()
    batch.clear()


def _pair(row: Row, columns: dict[str, str]) -> tuple[Any, ...]:
    sides = [response_of(row[columns[name]]) for name in SIDES]
    rewards = [row.get(f"{name}_reward") for name in SIDES]
    known = all(isinstance(reward, int | float) and isfinite(reward) for reward in rewards)
    question = question_of(row, columns)
    return (
        pair_digest(row, columns),
        whole_letters(str(row.get("id", ""))),
        whole_letters(question[:_QUESTION]),
        rewards[0] - rewards[1] if known else None,
        *(rewards if known else (None, None)),
        *map(len, sides),
        len(prompt_of(row, columns)),
        whole_letters("\n".join((str(row.get("id", "")), question, *(text[:_SEARCHED] for text in sides)))),
    )


def question_of(row: Row, columns: dict[str, str]) -> str:
    """What a pair's responses answer: the row's question, or the end of its prompt."""
    for name in ("input", "question", columns.get("query", "query")):
        if name not in columns.values() or name == columns.get("query"):
            text = text_of(row.get(name))
            if text.strip():
                return text
    return text_of(row[columns["prompt"]])[-_QUESTION:]


def _conditions(wanted: Wanted) -> tuple[str, list[Any]]:
    conditions, values = ["1"], list[Any]()
    if wanted.text:
        escaped = wanted.text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        conditions.append(r"searched LIKE ? ESCAPE '\'")
        values.append(f"%{escaped}%")
    if wanted.state != "all":
        conditions.append("COALESCE(decision, 'undecided') = ?")
        values.append(wanted.state)
    for value, comparison in ((wanted.least_gap, ">="), (wanted.most_gap, "<=")):
        if value is not None:
            conditions.append(f"gap {comparison} ?")
            values.append(value)
    return " AND ".join(conditions), values
