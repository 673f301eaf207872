"""A store of passages on disk: a corpus of any size is read once; then passages are found by title or drawn.

The store is one SQLite file. Texts are compressed, and tokens are counted when a passage is added, so that contexts are
made without counting again.
"""

import hashlib
import random
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lf_longpo.errors import UserError
from lf_longpo.models.sqlite_errors import plain_sqlite_errors
from lf_longpo.synthesis.multihop_questions import Document, title_key
from lf_longpo.text.chunking import count_each

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Texts per batch to tokenise.
_BATCH = 1000
# SQLite's application id of a store ("LPps"), and the version of its layout.
_KIND, _LAYOUT = 0x4C507073, 2


class Passage(NamedTuple):
    """One passage of the store."""

    title: str
    text: str
    tokens: int


class PassageStore:
    """Passages without duplicates. Only one process at a time may use a file.

    Args:
        path: the SQLite file; a store with other contents is recreated.
        contents: a hash of the contents.

    Raises:
        UserError: the file exists and is not a store, or it cannot be written.
    """

    def __init__(self, path: Path, contents: str) -> None:
        self._path = path
        self._contents = contents
        if path.exists() and not self._is_store():
            raise UserError(f"index: {path} exists and is not an index of passages; name another file")
        self._db = self._open()
        if not self.complete:
            self._db.close()
            path.unlink()
            self._db = self._open()
        self._size = self._count()

    def _is_store(self) -> bool:
        try:
            with sqlite3.connect(self._path) as db:
                return bool(db.execute("PRAGMA application_id").fetchone() == (_KIND,))
        except sqlite3.DatabaseError:
            return False
        finally:
            db.close()

    def _open(self) -> sqlite3.Connection:
        with self._plain_errors():
            new = not self._path.exists()
            db = sqlite3.connect(self._path, isolation_level=None)
            db.execute("PRAGMA journal_mode=OFF")  # a crash loses nothing: the store is recreated
            db.execute("PRAGMA synchronous=OFF")
            if new:
                db.execute(f"PRAGMA application_id={_KIND}")
            db.execute("CREATE TABLE IF NOT EXISTS contents (told TEXT)")
            db.execute(
                "CREATE TABLE IF NOT EXISTS passages (number INTEGER PRIMARY KEY, title TEXT, key TEXT, text BLOB,"
                " digest BLOB UNIQUE, tokens INTEGER)"
            )
            db.execute("CREATE INDEX IF NOT EXISTS by_key ON passages (key)")
            return db

    @property
    def complete(self) -> bool:
        """Whether the store has all passages of its contents."""
        with self._plain_errors():
            return self._db.execute("SELECT told FROM contents").fetchall() == [(self._mark(),)]

    def fill(self, documents: Iterable[Document], tokenizer: "PreTrainedTokenizerBase") -> None:
        """Adds documents; duplicates are skipped."""
        source = iter(documents)
        while batch := list(islice(source, _BATCH)):
            counts = token_counts(batch, tokenizer)
            rows = [
                (
                    document.title,
                    title_key(document.title),
                    zlib.compress(document.text.encode(), 1),
                    _digest(document),
                    count,
                )
                for document, count in zip(batch, counts, strict=True)
            ]
            with self._plain_errors():
                self._db.execute("BEGIN")
                self._db.executemany(
                    "INSERT OR IGNORE INTO passages (title, key, text, digest, tokens) VALUES (?, ?, ?, ?, ?)", rows
                )
                self._db.execute("COMMIT")
        with self._plain_errors():
            self._db.execute("PRAGMA synchronous=FULL")  # the row that marks the store as complete must reach the disk
            self._db.execute("INSERT INTO contents VALUES (?)", (self._mark(),))
        self._size = self._count()

    def titled(self, title: str) -> Passage | None:
        """The first passage with a title; an exact spelling is preferred."""
        return self._first("key = ? ORDER BY title = ? DESC, number", title_key(title), title)

    def drawn(self, draw: random.Random) -> Iterator[Passage]:
        """Passages in random order, each at most once."""
        seen: set[int] = set()
        while len(seen) < self._size:
            number = draw.randint(1, self._size)
            if number not in seen:
                seen.add(number)
                if passage := self._first("number = ?", number):
                    yield passage

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _mark(self) -> str:
        return f"{_LAYOUT} {self._contents}"

    def _count(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM passages").fetchone()[0])

    def _first(self, condition: str, *values: object) -> Passage | None:
        with self._plain_errors():
            row = self._db.execute(f"SELECT title, text, tokens FROM passages WHERE {condition} LIMIT 1", values)
            found = row.fetchone()
            return found and Passage(found[0], zlib.decompress(found[1]).decode(), found[2])

    def _plain_errors(self) -> AbstractContextManager[None]:
        return plain_sqlite_errors(self._path, "the next run recreates it from the corpus")


def shown(title: str, text: str) -> str:
    """The text of a passage in a context, without its number."""
    return f"{title}\n{text}" if title else text


def token_counts(documents: Sequence[Document], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens of each document in a context, without its number."""
    return count_each([shown(document.title, document.text) for document in documents], tokenizer)


def _digest(document: Document) -> bytes:
    return hashlib.sha256(f"{document.title}\n{document.text}".encode()).digest()[:16]
