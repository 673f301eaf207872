"""Reads documents: text, Markdown, HTML and PDF files, and tables with a text in each row."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError, first_line
from lf_longpo.files.faults import Faults, parsed
from lf_longpo.files.tables import FILE_TYPES, places_and_rows

# What PDFium writes where a word was divided at the end of a line, and control characters.
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Text:
    """A document that was read."""

    id: str
    """The file's path below the input folder, or the row's `id`."""
    text: str
    source: str
    """The name of the folder, file or data set that it was read from."""
    licence: str
    """The row's licence, or empty."""


def read_documents(inputs: Sequence[str], split: str) -> Iterator[tuple[str, Text]]:
    """Streams documents, each with its place.

    Args:
        inputs: files, folders of files (at any depth), or hub data sets with a `text` in each row.
        split: the split of hub data sets.

    Raises:
        UserError: documents cannot be used (raised at the end, names all of them), or an input is missing (at once).
    """
    with Faults("documents") as faults:
        for name in inputs:
            found = False
            for root, path in _files(name):
                found = True
                file_id = path.relative_to(root).as_posix() if root else path.name
                try:
                    if path.suffix.lower() in TEXT_TYPES:
                        _check_name(file_id, path)
                        yield str(path), Text(file_id, read_text(path), _source(name), "")
                    else:
                        yield from _rows(str(path), split, file_id, _source(name), faults)
                except (UserError, OSError) as error:
                    faults.add(error)
            if not found and Path(name).is_dir():
                types = ", ".join((*TEXT_TYPES, *FILE_TYPES))
                raise UserError(f"input: {name} holds no {types} file; name another folder")
            if not found:
                yield from _rows(name, split, name, name, faults)


def documents_state(inputs: Iterable[str]) -> str:
    """A hash of the inputs of `read_documents` that changes when one of their files does."""
    return files_state((name, (path for _, path in _files(name))) for name in inputs)


def files_state(named: Iterable[tuple[str, Iterable[Path]]]) -> str:
    """A hash that changes when a file or a name does."""
    state = hashlib.sha256()
    for name, files in named:
        state.update(name.encode())
        for file in files:
            known = file.stat()
            state.update(os.fsencode(file) + f" {known.st_size} {known.st_mtime_ns}".encode())
    return state.hexdigest()


def other_files(inputs: Iterable[str]) -> int:
    """How many files in the input folders have a type that cannot be read."""
    known = (*TEXT_TYPES, *FILE_TYPES)
    files = (path for name in inputs for path in Path(name).rglob("*") if path.is_file())
    return sum(path.suffix.lower() not in known and not path.name.startswith(".") for path in files)


def text_files(folder: Path) -> list[Path]:
    """The document files of a folder, at any depth, in order."""
    # Data cards are no documents: questions may have been written into the same folder.
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in TEXT_TYPES and not path.name.endswith(".card.md") and path.is_file()
    )


def read_text(path: Path) -> str:
    """The text of a document.

    Raises:
        UserError: there is no such file, its type is unknown, it cannot be read, or it has no text.
    """
    if not path.is_file():
        raise UserError(f"no file {path}; check the path")
    if path.suffix.lower() not in TEXT_TYPES:
        raise UserError(f"{path} has an unknown type; convert it to one of {', '.join(TEXT_TYPES)}")
    text = TEXT_TYPES[path.suffix.lower()](path).strip()
    if not text:
        raise UserError(
            f"{path} holds no text; {_WHY_EMPTY.get(path.suffix.lower(), 'fill it,')} or remove it from the folder"
        )
    return text


def _plain(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}); convert it, or remove it from the folder") from None


def _html(path: Path) -> str:
    """The text of the page without its navigation."""
    from trafilatura import extract

    return extract(path.read_bytes(), include_comments=False, favor_recall=True) or ""


def _pdf(path: Path) -> str:
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        with PdfDocument(path) as pages:
            text = "\n".join(page.get_textpage().get_text_bounded() for page in pages)
            return _NO_TEXT.sub("", text).replace("\r\n", "\n")
    except PdfiumError as error:
        if "password" in str(error).lower():
            raise UserError(f"{path} is encrypted; decrypt it, or remove it from the folder") from None
        raise UserError(
            f"{path} cannot be read as PDF ({first_line(error)}); fix it, or remove it from the folder"
        ) from None


TEXT_TYPES: dict[str, Callable[[Path], str]] = {
    ".txt": _plain,
    ".md": _plain,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
"""The function that reads a document, by the end of its name."""
_WHY_EMPTY = dict.fromkeys((".html", ".htm"), "its text was not found; save it as .txt or .md,")
_WHY_EMPTY[".pdf"] = "run OCR if its pages are images,"


def _files(name: str) -> Iterator[tuple[Path | None, Path]]:
    """The files of an input, each after the input folder (None for a single file); no files for a hub data set."""
    path = Path(name)
    if path.is_dir():
        tables = (file for file in path.rglob("*") if file.suffix.lower() in FILE_TYPES and file.is_file())
        yield from ((path, file) for file in sorted([*text_files(path), *tables]))
    elif path.suffix.lower() in (*TEXT_TYPES, *FILE_TYPES):
        if not path.is_file():
            raise UserError(f"input: no file {name}; check the path")
        yield None, path
    elif path.is_file():
        raise UserError(
            f"input: {name} has an unknown type; convert it to one of {', '.join((*TEXT_TYPES, *FILE_TYPES))}"
        )


def _source(name: str) -> str:
    return Path(name).resolve().name


def _rows(name: str, split: str, file_id: str, source: str, faults: Faults) -> Iterator[tuple[str, Text]]:
    numbers = count(1)

    def parse(row: Any, place: str) -> Text:
        return _document(row, place, f"{file_id}#{next(numbers)}", source)

    return parsed(places_and_rows(name, split, faults), parse, faults)


def _document(row: Any, place: str, name: str, source: str) -> Text:
    known: dict[str, Any] = row if isinstance(row, dict) else {}
    text, id, licence = (known.get(field) for field in ("text", "id", "licence"))
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{place}: the field text must be a text that is not empty; fill it, or remove the row")
    usable = isinstance(id, str | int) and not isinstance(id, bool) and str(id).strip()
    id = str(id) if usable else name
    licence = licence if isinstance(licence, str) else ""
    return Text(id, text.strip().replace("\r\n", "\n"), source, licence)


def _check_name(name: str, path: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!r}: the file's name is not UTF-8; rename it") from None
