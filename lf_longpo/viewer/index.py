"""An index of pairs in SQLite: one line per pair with the byte offset of its row, without its context.

A thread reads the file; its first pairs are visible at once, even if the file has gigabytes. When the file grows, as
during a run, the thread reads the new pairs. When the file is replaced, as at the end of a run, all pairs are read
again and keep their numbers, so that open pages stay valid. The index stays in the user's cache for the next start.
"""

import hashlib
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lf_longpo.config import LongRewardGenerateConfig
from lf_longpo.data.review import PAIR, SIDES, Decision, pair_digest, response_of, text_of
from lf_longpo.errors import UserError, first_line
from lf_longpo.files.cache_folder import cache_folder
from lf_longpo.files.journal import Row, row_of_line, rows_with_offsets
from lf_longpo.longreward.response_files import SCORES
from lf_longpo.longreward.scorer import DIMENSIONS
from lf_longpo.run_folder.pair_sets import PairSet, prompt_parts
from lf_longpo.text.differences import whole_letters
from lf_longpo.text.fitting import CUT_MARK
from lf_longpo.text.graphemes import whole_end, whole_start
from lf_longpo.text.language import detect_language
from lf_longpo.text.thinking import split_thought
from lf_longpo.viewer.pair_filter import PairFilter

# The number of rows per commit; rows are visible after their commit.
_BATCH = 100
# The number of characters of a response that can be searched, and of a question that lists show.
_SEARCHED, _QUESTION = 20_000, 300
# The number of characters of a question that its language is detected from, and of a source and a comment that lists
# show.
_DETECTED, _SOURCE, _COMMENT = 2_000, 80, 200
# Where published data sets say where a question comes from.
_SOURCE_FIELDS = ("source", "dataset")
# The most sources that a filter lists.
_SOURCES = 50
# SQLite's integers end here.
_MOST_INDEX = 2**63
# Changes when the tables or their contents change; then indexes of earlier versions are not used.
_LAYOUT = 4
# Seconds that a page waits for new pairs; a few are read in this time.
_PATIENCE = 1.0
# Seconds after its last change until an index is removed.
_KEPT = 14 * 24 * 3600
_COLUMNS = {
    "number": "INTEGER PRIMARY KEY",
    "byte_offset": "INTEGER",
    "digest": "TEXT",
    "id": "TEXT",
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
_PAIRS = (
    "pairs LEFT JOIN decisions USING (digest)"
    " LEFT JOIN scores AS chosen ON chosen.idx = id || '-' || chosen_index"
    " LEFT JOIN scores AS rejected ON rejected.idx = id || '-' || rejected_index"
)


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
    language: str
    """Of the question: `en` or `zh`."""
    source: str
    """The row's `source` or `dataset`; empty if it has none."""
    cut: int
    """1 if the middle of its prompt was cut so that it fits the cutoff length, else 0."""
    thinking: int
    """1 if a response begins with a thought, else 0."""
    decision: str | None
    comment: str | None
    reviewer: str | None


class Kinds(NamedTuple):
    """How the pairs of the index differ: a column and a filter without a difference are not shown."""

    languages: list[str]
    sources: list[str]
    """The most frequent ones."""
    cut: bool
    """Whether a prompt is cut."""
    thinking: bool
    """Whether a response has a thought."""
    dimensions: tuple[str, ...]
    """The dimensions of the judge's scores; empty if the pairs have none."""


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
            columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
            db.execute(f"CREATE TABLE IF NOT EXISTS pairs ({columns})")
            db.execute("CREATE INDEX IF NOT EXISTS digests ON pairs (digest)")
            db.execute("CREATE INDEX IF NOT EXISTS kinds ON pairs (source, language, cut, thinking)")
            scores = ", ".join(f"{dimension} REAL" for dimension in DIMENSIONS)
            db.execute(f"CREATE TABLE IF NOT EXISTS scores (idx TEXT PRIMARY KEY, {scores})")
            db.execute("CREATE TABLE IF NOT EXISTS scores_read (inode INTEGER, last INTEGER)")
            db.execute("CREATE TABLE IF NOT EXISTS read (inode INTEGER, size INTEGER, changed INTEGER)")
            db.execute("DROP TABLE IF EXISTS decisions")
            db.execute("CREATE TABLE decisions (digest TEXT PRIMARY KEY, decision TEXT, comment TEXT, reviewer TEXT)")
        self.decide(decisions)

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

    def kinds(self) -> Kinds:
        """How its pairs differ."""
        with self._open() as db:
            sources: Counter[str] = Counter()
            others = set()
            groups = "SELECT source, language, cut, thinking, COUNT(*) FROM pairs GROUP BY 1, 2, 3, 4"
            for source, language, cut, thinking, number in db.execute(groups):
                sources[source] += number
                others.add((language, cut, thinking))
            scored = db.execute("SELECT 1 FROM scores LIMIT 1").fetchone()
        return Kinds(
            sorted({language for language, _, _ in others}),
            [source for source, _ in sources.most_common(_SOURCES) if source],
            any(cut for _, cut, _ in others),
            any(thinking for _, _, thinking in others),
            DIMENSIONS if scored else (),
        )

    def numbers(self, pair_filter: PairFilter, also: int | None = None) -> list[int]:
        """The numbers of the pairs that pass a filter, in its order.

        Args:
            pair_filter: the filter.
            also: a pair that is included even if it does not pass, at its place in the order.
        """
        conditions, values = pair_filter.conditions()
        with self._open() as db:
            rows = db.execute(
                f"SELECT number FROM {_PAIRS} WHERE ({conditions}) OR number = ? ORDER BY {pair_filter.order}",
                [*values, also],
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

    def digests(self, pair_filter: PairFilter) -> dict[str, str]:
        """The ids of the pairs that pass a filter, by their digests."""
        conditions, values = pair_filter.conditions()
        with self._open() as db:
            return dict(db.execute(f"SELECT digest, id FROM {_PAIRS} WHERE {conditions} ORDER BY number", values))

    def number_of(self, digest: str) -> int | None:
        """The number of the first pair with a digest; None if there is none."""
        with self._open() as db:
            return db.execute("SELECT MIN(number) FROM pairs WHERE digest = ?", [digest]).fetchone()[0]

    def scores(self, numbers: list[int]) -> dict[int, dict[str, tuple[float, float]]]:
        """The judge's scores of the chosen and the rejected response by dimension, of the pairs that have them."""
        columns = ", ".join(f"chosen.{dimension}, rejected.{dimension}" for dimension in DIMENSIONS)
        with self._open() as db:
            rows = db.execute(f"SELECT number, {columns} FROM {_PAIRS} WHERE number IN ({_marks(numbers)})", numbers)
            return {
                number: dict(zip(DIMENSIONS, zip(values[::2], values[1::2], strict=True), strict=True))
                for number, *values in rows
                if None not in values
            }

    def lines(self, numbers: list[int]) -> list[PairLine]:
        """The lines of the pairs with these numbers, in the order of the numbers."""
        columns = ", ".join(PairLine._fields)
        with self._open() as db:
            rows = db.execute(
                f"SELECT {columns} FROM pairs LEFT JOIN decisions USING (digest) WHERE number IN ({_marks(numbers)})",
                numbers,
            )
            found = {line.number: line for line in map(PairLine._make, rows)}
        return [found[number] for number in numbers if number in found]

    def number_of_id(self, id: str) -> int | None:
        """The number of the pair with this id; None if there is none, or it is not read yet."""
        with self._open() as db:
            found = db.execute("SELECT MAX(number) FROM pairs WHERE id = ?", (whole_letters(id),)).fetchone()
        return found[0] if found else None

    def row(self, line: PairLine) -> Row | None:
        """The pair of a line; None if the file has changed since it was indexed."""
        if not self._pair_set.path.is_file():
            return None
        with self._pair_set.path.open("rb") as file:
            file.seek(line.byte_offset)
            row = row_of_line(file.readline(), {self._pair_set.columns[name] for name in PAIR})
        return row if row is not None and pair_digest(row, self._pair_set.columns) == line.digest else None

    def decide(self, decisions: Mapping[str, Decision | None]) -> None:
        """Updates the decisions that lists show, by the pair's digest."""
        rows = [
            (digest, decision.verdict, decision.comment[:_COMMENT], decision.reviewer)
            for digest, decision in decisions.items()
            if decision
        ]
        with self._open() as db:
            db.executemany("DELETE FROM decisions WHERE digest = ?", [(digest,) for digest in decisions])
            db.executemany("INSERT INTO decisions VALUES (?, ?, ?, ?)", rows)

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
    db.executemany(f"INSERT OR REPLACE INTO pairs VALUES ({_marks(_COLUMNS)})", batch)
    db.commit()
    batch.clear()


def _put_scores(db: sqlite3.Connection, idx: str, scores: Any) -> None:
    """Stores a response's scores. An idx of the published files has one more part before the question's id."""
    values = [scores.get(dimension) for dimension in DIMENSIONS] if isinstance(scores, dict) else [None]
    if not all(isinstance(value, int | float) for value in values):
        return
    marks = f"({_marks(('idx', *DIMENSIONS))})"
    db.execute(f"INSERT OR REPLACE INTO scores VALUES {marks}", (idx, *values))
    if idx.count("-") > 1:
        db.execute(f"INSERT OR IGNORE INTO scores VALUES {marks}", (idx.partition("-")[2], *values))


def _marks(values: Collection[Any]) -> str:
    """A question mark for each value of an SQL statement."""
    return ", ".join("?" * len(values))


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


def question_text(row: Row, columns: dict[str, str]) -> str:
    """The question of a pair; if its row has none, the end of its prompt."""
    for name in ("input", "question", columns.get("query", "query")):
        if name not in columns.values() or name == columns.get("query"):
            text = text_of(row.get(name))
            if text.strip():
                return text
    prompt = text_of(row[columns["prompt"]], columns.get("content_tag"))
    return prompt[whole_end(prompt, max(0, len(prompt) - _QUESTION)) :]
