"""Files that survive a kill: append-only JSONL with an index by id, and files that are replaced as a whole.

If a kill cuts off a journal's last line, that line's work is done again; it is never an error.
"""

import json
import os
import tempfile
import threading
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from lf_longpo.errors import UserError
from lf_longpo.text.differences import whole_letters

Row = dict[str, Any]
# orjson reads larger integers as floats.
_BEYOND = 2.0**63


def row_id(row: Row) -> str | None:
    """The `id` of a row; None if it is not a text."""
    id = row.get("id")
    return id if isinstance(id, str) else None


class Journal:
    """An append-only JSONL file with an index by id. Memory holds only the byte offset of each row.

    Opening the file removes an incomplete last line and skips other lines that are not rows; the work of these lines
    is done again.

    Args:
        path: the file; created if it is missing.
        fields: the fields that a row must have.
        key: returns the id that a row belongs to, or None if the row is not valid.
    """

    def __init__(self, path: Path, fields: Collection[str] = (), key: Callable[[Row], str | None] = row_id) -> None:
        self.skipped = 0
        """The number of lines that are not rows."""
        self._broken = False
        self._fields = set(fields)
        self._key = key
        self._offsets: dict[str, list[int]] = {}
        self._file = path.open("a+b")
        self._index()

    def __contains__(self, id: str) -> bool:
        return id in self._offsets

    def __len__(self) -> int:
        return sum(map(len, self._offsets.values()))

    def ids(self) -> Collection[str]:
        """The ids with at least one row."""
        return self._offsets.keys()

    def rows(self, id: str) -> list[Row]:
        """The rows of one id, in the order they were written."""
        found = []
        for offset in self._offsets.get(id, ()):
            self._file.seek(offset)
            found.append(json.loads(self._file.readline()))
        return found

    def append(self, row: Row) -> None:
        """Writes one row. After this returns, a kill of the process cannot lose the row. Lone surrogates become U+FFFD.

        Raises:
            OSError: the row cannot be written. The next opening removes what was written of it.
        """
        self._file.seek(0, os.SEEK_END)
        offset = self._file.tell()
        try:
            self._file.write(whole_letters(json.dumps(row, ensure_ascii=False)).encode() + b"\n")
            self._file.flush()
        except OSError as error:  # a full disk
            self._broken = True
            error.filename = self._file.name
            raise
        if (id := self._key(row)) is not None:
            self._offsets.setdefault(id, []).append(offset)

    def close(self) -> None:
        """Syncs the file to disk, so that a power cut cannot lose rows, and closes it."""
        if self._file.closed:
            return
        # What a failed append left in the buffer fails again; `append` has reported it.
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
        offset = 0
        torn = False
        for line in self._file:
            row = row_of_line(line, self._fields)
            id = None if row is None else self._key(row)
            if id is not None:
                self._offsets.setdefault(id, []).append(offset)
            elif not line.endswith(b"\n"):
                self._file.truncate(offset)
                return
            elif line.strip():
                self.skipped += 1
            offset += len(line)
            torn = not line.endswith(b"\n")
        if torn:  # a complete row without a line break, as other programs may write it
            self._file.seek(0, os.SEEK_END)
            self._file.write(b"\n")
            self._file.flush()


def read_rows(path: Path, fields: Collection[str] = (), key: Callable[[Row], str | None] = row_id) -> Iterator[Row]:
    """The rows of a journal that another process may be writing. Changes nothing; skips lines that are not rows."""
    wanted = set(fields)
    if path.is_file():
        with path.open("rb") as lines:
            for line in lines:
                row = row_of_line(line, wanted)
                if row is not None and key(row) is not None:
                    yield row


def rows_with_offsets(lines: Iterable[bytes], fields: Collection[str]) -> Iterator[tuple[int, Row]]:
    """The rows of an open file, each with the byte offset of its line; skips lines that are not rows."""
    offset, wanted = 0, set(fields)
    for line in lines:
        if (row := row_of_line(line, wanted)) is not None:
            yield offset, row
        offset += len(line)


class RowsById:
    """The rows of a journal by id, read only; another process may be writing the journal.

    Memory holds only the byte offset of each row. One thread may read on while others take the rows so far.

    Args:
        path: the journal; a missing file has no rows.
        fields: the fields that a row must have.
        key: returns the id that a row belongs to, or None if the row is not valid.
        seen: is called with the id and each row when the row is indexed.
    """

    def __init__(
        self,
        path: Path,
        fields: Collection[str],
        key: Callable[[Row], str | None] = row_id,
        seen: Callable[[str, Row], None] = lambda id, row: None,
    ) -> None:
        self._path = path
        self._fields = fields
        self._key = key
        self._seen = seen
        self._offsets: dict[str, array[int]] = {}
        self._last = -1
        self._size = 0
        self._reading = threading.Lock()

    def read_on(self) -> None:
        """Indexes the rows that are new since the last call. A torn last line is read again when it is whole.

        Returns at once if another thread is reading.
        """
        if not self._reading.acquire(blocking=False):
            return
        try:
            self._read_on()
        finally:
            self._reading.release()

    def _read_on(self) -> None:
        if not self._path.is_file() or self._path.stat().st_size == self._size:
            return
        with self._path.open("rb") as lines:
            self._size = self._path.stat().st_size
            begin = lines.seek(max(self._last, 0))
            for offset, row in rows_with_offsets(lines, self._fields):
                if begin + offset == self._last:
                    continue
                self._last = begin + offset
                if (id := self._key(row)) is not None:
                    if (offsets := self._offsets.get(id)) is None:
                        offsets = self._offsets[id] = array("Q")
                    offsets.append(self._last)
                    self._seen(id, row)

    def rows(self, id: str) -> list[Row]:
        """The rows of one id, in the order they were written."""
        found = []
        if offsets := self._offsets.get(id):
            with self._path.open("rb") as file:
                for offset in offsets:
                    file.seek(offset)
                    found.append(json.loads(file.readline()))
        return found


def check_folder(folder: Path, what: str) -> None:
    """Checks that files can be written in `folder`, which may not exist yet; creates nothing.

    Args:
        folder: the folder to check.
        what: the folder's role ("output", or the name of a setting), for the error.

    Raises:
        UserError: a file has the folder's name, or the folder is not writable.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"{what} {folder} cannot be created: {nearest} is a file; name another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{what} {folder} cannot be written; name another folder or change its permissions")


def write_whole(path: Path, parts: Iterator[str] | list[str]) -> None:
    """Writes a text file completely or not at all, see `replacing`."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(parts)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields an empty file to write. It replaces `path` atomically at the end of the block; an error removes it.

    If `path` is a symbolic link, the link stays and its target is replaced. An existing file keeps its permissions.

    Raises:
        OSError: the file cannot be written; the error names `path`.
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


def row_of_line(line: bytes, fields: set[str]) -> Row | None:
    """The row in a line; None if the line is not a JSON object with these fields."""
    try:
        row = _value_of(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and fields <= row.keys() else None


def _value_of(line: bytes) -> Any:
    """As `json.loads`, which needs several times as long for rows with many numbers."""
    try:
        value = orjson.loads(line)
    except ValueError:  # NaN and half characters
        return json.loads(line)
    if isinstance(value, dict):
        for x in value.values():  # a loop, which is several times as fast as `any`
            if type(x) is float and not -_BEYOND < x < _BEYOND:
                return json.loads(line)  # an integer of more than 64 bits, as an id may be
    return value
