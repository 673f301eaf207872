"""A store of passages on disk: a corpus of any size is read once, and then passages are found by title or drawn.

One SQLite file. Texts are compressed; each passage's tokens are counted when it comes in, so that a context of a given
length is put together without counting anything again.
"""

import hashlib
import json
import random
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lf_longpo.models.sqlite_errors import plain_sqlite_errors
from lf_longpo.synthesis.sources import Document, title_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Texts that are tokenised at once.
_BATCH = 1000


class Passage(NamedTuple):
    """One passage of the store."""

    number: int
    """From 1, in the order they came in."""
    title: str
    text: str
    tokens: int


class PassageStore:
    """Passages, each kept once.

    Args:
        path: the SQLite file.
        contents: tells what is to be in it; a file with other contents is made anew.

    Raises:
        UserError: the file is there but is no store, or cannot be written.
    """

    def __init__(self, path: Path, contents: dict[str, object]) -> None:
        self._path = path
        self._contents = json.dumps(contents, sort_keys=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = self._open()
        if not self.complete:
            self._db.close()
            path.unlink()
            self._db = self._open()
        self._size = self._count()

    def _open(self) -> sqlite3.Connection:
        with plain_sqlite_errors(self._path, "it is made anew from the corpus"):
            db = sqlite3.connect(self._path, isolation_level=None)
            db.execute("PRAGMA synchronous=OFF")  # made anew after a crash, so nothing is lost
            db.execute("PRAGMA journal_mode=OFF")
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
        with plain_sqlite_errors(self._path, "it is made anew from the corpus"):
            return self._db.execute("SELECT told FROM contents").fetchall() == [(self._contents,)]

    def __len__(self) -> int:
        return self._size

    def fill(self, documents: Iterable[Document], tokenizer: "PreTrainedTokenizerBase") -> None:
        """Takes in documents; one that is there already is passed over."""
        source = iter(documents)
        while batch := list(islice(source, _BATCH)):
            counts = token_counts(batch, tokenizer)
            rows = [
                (one.title, title_key(one.title), zlib.compress(one.text.encode(), 1), _digest(one), tokens)
                for one, tokens in zip(batch, counts, strict=True)
            ]
            with plain_sqlite_errors(self._path, "it is made anew from the corpus"):
                self._db.execute("BEGIN")
                self._db.executemany(
                    "INSERT OR IGNORE INTO passages (title, key, text, digest, tokens) VALUES (?, ?, ?, ?, ?)", rows
                )
                self._db.execute("COMMIT")
        self._db.execute("INSERT INTO contents VALUES (?)", (self._contents,))
        self._size = self._count()

    def titled(self, title: str) -> Passage | None:
        """The first passage of that title."""
        return self._one("key = ?", title_key(title))

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

    def _count(self) -> int:
        return self._db.execute("SELECT COUNT(*) FROM passages").fetchone()[0]

    def _one(self, condition: str, value: object) -> Passage | None:
        with plain_sqlite_errors(self._path, "it is made anew from the corpus"):
            row = self._db.execute(
                f"SELECT number, title, text, tokens FROM passages WHERE {condition} ORDER BY number LIMIT 1", (value,)
            ).fetchone()
        return row and Passage(row[0], row[1], zlib.decompress(row[2]).decode(), row[3])


def shown(title: str, text: str) -> str:
    """A passage as it stands in a context, behind its number."""
    return f"{title}\n{text}" if title else text


def token_counts(documents: Sequence[Document], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens that each takes in a context, without its number."""
    if not documents:
        return []
    encoded = tokenizer([shown(one.title, one.text) for one in documents], add_special_tokens=False)
    return [len(ids) for ids in encoded["input_ids"]]


def _digest(document: Document) -> bytes:
    return hashlib.sha256(f"{title_key(document.title)}\n{document.text}".encode()).digest()[:16]
