"""A store of passages on disk: a corpus of any size is read once, and then passages are found by title or drawn.

One SQLite file. Texts are compressed; each passage's tokens are counted when it comes in, so that a context of a given
length is put together without counting anything again.
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
from lf_longpo.synthesis.sources import Document, title_key
from lf_longpo.text.chunking import count_each

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Texts that are tokenised at once.
_BATCH = 1000
# Tells a store from every other SQLite file ("LPps"), and its layout from later ones.
_KIND, _LAYOUT = 0x4C507073, 2


class Passage(NamedTuple):
    """One passage of the store."""

    title: str
    text: str
    tokens: int


class PassageStore:
    """Passages, each kept once. One process at a time may work with a file.

    Args:
        path: the SQLite file; made anew where it holds something else than it is to hold.
        contents: a hash of what is to be in it.

    Raises:
        UserError: the file is there but is no store, or cannot be written.
    """

    def __init__(self, path: Path, contents: str) -> None:
        self._path = path
        self._contents = contents
        if path.exists() and not self._is_store():
            raise UserError(f"index: {path} is there and is no index of passages; name another file")
        self._db = self._open()
        if not self.complete:
            self._db.close()
            path.unlink()
            self._db = self._open()
        self._size = self._count()

    def _is_store(self) -> bool:
        try:
            with sqlite3.connect(self._path) as db:
                return db.execute("PRAGMA application_id").fetchone() == (_KIND,)
        except sqlite3.DatabaseError:
            return False
        finally:
            db.close()

    def _open(self) -> sqlite3.Connection:
        with self._plain_errors():
            new = not self._path.exists()
            db = sqlite3.connect(self._path, isolation_level=None)
            db.execute("PRAGMA journal_mode=OFF")  # made anew after a crash, so nothing is lost
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
        """Whether all that is to be in it is there."""
        with self._plain_errors():
            return self._db.execute("SELECT told FROM contents").fetchall() == [(self._mark(),)]

    def fill(self, documents: Iterable[Document], tokenizer: "PreTrainedTokenizerBase") -> None:
        """Takes in documents; one that is there already is passed over."""
        source = iter(documents)
        while batch := list(islice(source, _BATCH)):
            counts = token_counts(batch, tokenizer)
            rows = [
                (one.title, title_key(one.title), zlib.compress(one.text.encode(), 1), _digest(one), tokens)
                for one, tokens in zip(batch, counts, strict=True)
            ]
            with self._plain_errors():
                self._db.execute("BEGIN")
                self._db.executemany(
                    "INSERT OR IGNORE INTO passages (title, key, text, digest, tokens) VALUES (?, ?, ?, ?, ?)", rows
                )
                self._db.execute("COMMIT")
        with self._plain_errors():
            self._db.execute("PRAGMA synchronous=FULL")  # what says that all is there comes to the disk after all
            self._db.execute("INSERT INTO contents VALUES (?)", (self._mark(),))
        self._size = self._count()

    def titled(self, title: str) -> Passage | None:
        """The first passage of that title; of several spellings, the one that is the same to the letter."""
        return self._one("key = ? ORDER BY title = ? DESC, number", title_key(title), title)

    def drawn(self, draw: random.Random) -> Iterator[Passage]:
        """Passages in random order, each at most once."""
        seen: set[int] = set()
        while len(seen) < self._size:
            number = draw.randint(1, self._size)
            if number not in seen:
                seen.add(number)
                yield self._one("number = ?", number)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _mark(self) -> str:
        return f"{_LAYOUT} {self._contents}"

    def _count(self) -> int:
        return self._db.execute("SELECT COUNT(*) FROM passages").fetchone()[0]

    def _one(self, condition: str, *values: object) -> Passage | None:
        with self._plain_errors():
            row = self._db.execute(f"SELECT title, text, tokens FROM passages WHERE {condition} LIMIT 1", values)
            found = row.fetchone()
            return found and Passage(found[0], zlib.decompress(found[1]).decode(), found[2])

    def _plain_errors(self) -> AbstractContextManager[None]:
        return plain_sqlite_errors(self._path, "it is made anew from the corpus")


def shown(title: str, text: str) -> str:
    """A passage as it stands in a context, behind its number."""
    return f"{title}\n{text}" if title else text


def token_counts(documents: Sequence[Document], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens that each takes in a context, without its number."""
    return count_each([shown(one.title, one.text) for one in documents], tokenizer)


def _digest(document: Document) -> bytes:
    return hashlib.sha256(f"{document.title}\n{document.text}".encode()).digest()[:16]
