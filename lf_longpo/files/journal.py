"""Files that survive a kill: append-only JSONL with an index by id, and whole files that appear at once.

A line that was cut off by a kill is work owed again, never a crash.
"""

import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.text.differences import whole_letters

Row = dict[str, Any]


def row_id(row: Row) -> str | None:
    """The `id` of a row; None where it is no text."""
    id = row.get("id")
    return id if isinstance(id, str) else None


class Journal:
    """An append-only JSONL file whose rows are found by the id they belong to.

    Only each row's place in the file is held in memory. A torn last line is cut off on opening; other lines that are
    no rows are passed over (`skipped` counts them): their work is owed again.

    Args:
        path: the file; made where it is missing.
        fields: what a row must have.
        key: the id that a row belongs to, or None where it is no row after all.
    """

    def __init__(self, path: Path, fields: Collection[str] = (), key: Callable[[Row], str | None] = row_id) -> None:
        self.skipped = 0
        self._broken = False
        self._fields = set(fields)
        self._key = key
        self._places: dict[str, list[int]] = {}
        self._file = path.open("a+b")
        self._index()

    def __contains__(self, id: str) -> bool:
        return id in self._places

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    def ids(self) -> Collection[str]:
        """The ids that have rows."""
        return self._places.keys()

    def rows(self, id: str) -> list[Row]:
        """The rows of one id, in the order they were written."""
        found = []
        for place in self._places.get(id, ()):
            self._file.seek(place)
            found.append(json.loads(self._file.readline()))
        return found

    def append(self, row: Row) -> None:
        """Writes one row; when this returns, a kill of the process cannot lose it. Lone surrogates become U+FFFD.

        Raises:
            OSError: it cannot be written; the next opening cuts off what is there of it.
        """
        self._file.seek(0, os.SEEK_END)
        place = self._file.tell()
        try:
            self._file.write(whole_letters(json.dumps(row, ensure_ascii=False)).encode() + b"\n")
            self._file.flush()
        except OSError as error:  # a full disk
            self._broken = True
            error.filename = self._file.name
            raise
        self._places.setdefault(self._key(row), []).append(place)

    def close(self) -> None:
        """Makes the rows safe from a power cut too, and closes the file."""
        if self._file.closed:
            return
        # What a failed append left in the buffer would fail again; that was told.
        with suppress(OSError) if self._broken else nullcontext():
            try:
                os.fsync(self._file.fileno())
            finally:
                self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _index(self) -> None:
        self._file.seek(0)
        place = 0
        torn = False
        for line in self._file:
            row = parsed(line, self._fields)
            id = None if row is None else self._key(row)
            if id is not None:
                self._places.setdefault(id, []).append(place)
            elif not line.endswith(b"\n"):
                self._file.truncate(place)
                return
            elif line.strip():
                self.skipped += 1
            place += len(line)
            torn = not line.endswith(b"\n")
        if torn:  # a whole row without its line break, as other programs may leave it
            self._file.seek(0, os.SEEK_END)
            self._file.write(b"\n")
            self._file.flush()


def read_rows(path: Path, fields: Collection[str] = (), key: Callable[[Row], str | None] = row_id) -> Iterator[Row]:
    """The rows of a journal that another process may be writing; changes nothing, passes over what is no row."""
    if path.is_file():
        with path.open("rb") as lines:
            for line in lines:
                row = parsed(line, set(fields))
                if row is not None and key(row) is not None:
                    yield row


def placed_rows(lines: Iterable[bytes], fields: Collection[str]) -> Iterator[tuple[int, Row]]:
    """The rows of an open file, each behind the byte at which it begins; passes over what is no row."""
    place, wanted = 0, set(fields)
    for line in lines:
        if (row := parsed(line, wanted)) is not None:
            yield place, row
        place += len(line)


class RowsById:
    """The rows of a journal that another process may be writing, found by id; only their places are held in memory.

    Args:
        path: the journal; one that is missing has no rows.
        fields: what a row must have.
        key: the id that a row belongs to, or None where it is no row after all.
    """

    def __init__(self, path: Path, fields: Collection[str], key: Callable[[Row], str | None] = row_id) -> None:
        self._path = path
        self._places: dict[str, list[int]] = {}
        if path.is_file():
            with path.open("rb") as lines:
                for place, row in placed_rows(lines, fields):
                    if (id := key(row)) is not None:
                        self._places.setdefault(id, []).append(place)

    def rows(self, id: str) -> list[Row]:
        """The rows of one id, in the order they were written."""
        found = []
        if places := self._places.get(id):
            with self._path.open("rb") as file:
                for place in places:
                    file.seek(place)
                    found.append(json.loads(file.readline()))
        return found


def check_folder(folder: Path, what: str) -> None:
    """Tells whether files can be written in `folder`, which need not be there yet; makes nothing.

    Raises:
        UserError: a file is in the way, or the folder cannot be written.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"{what} {folder} cannot be made: {nearest} is a file; name another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{what} {folder} cannot be written; name another folder or change its permissions")


def write_whole(path: Path, parts: Iterator[str] | list[str]) -> None:
    """Writes a text file that appears complete or not at all, see `replacing`."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(parts)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives an empty file to write; it replaces `path` at once when the block ends, and is removed where it fails.

    Where `path` is a symbolic link, the file that it points to is replaced and the link stays. A file that was there
    keeps its permissions.

    Raises:
        OSError: the file cannot be written; it names `path`.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink()
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def parsed(line: bytes, fields: set[str]) -> Row | None:
    """The row in a line; None where it is none, or lacks one of the fields."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and fields <= set(row) else None
