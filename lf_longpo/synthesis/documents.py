"""Reading documents as people have them: texts, Markdown, HTML pages, PDFs, and tables with a text in each row."""

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

# What PDFium writes where a word was divided at the end of a line, and other characters that are none.
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Text:
    """A document that was read."""

    id: str
    """The file below the folder that was named, or the row's `id`."""
    text: str
    source: str
    """The folder, file or data set that it is from."""
    licence: str
    """As its row says, or empty."""


def read_documents(inputs: Sequence[str], split: str) -> Iterator[tuple[str, Text]]:
    """Streams documents, each behind its place.

    Args:
        inputs: files, folders of files (at any depth), or hub data sets whose rows have a `text`.
        split: of hub data sets.

    Raises:
        UserError: in the end, naming all documents that cannot be used; at once where an input is not there.
    """
    with Faults("documents") as faults:
        for name in inputs:
            found = False
            for root, path in _files(name):
                found = True
                own = path.relative_to(root).as_posix() if root else path.name
                try:
                    if path.suffix.lower() in TEXT_TYPES:
                        _check_name(own, path)
                        yield str(path), Text(own, read_text(path), _source(name), "")
                    else:
                        yield from _rows(str(path), split, own, _source(name), faults)
                except (UserError, OSError) as error:
                    faults.add(error)
            if not found and Path(name).is_dir():
                types = ", ".join((*TEXT_TYPES, *FILE_TYPES))
                raise UserError(f"input: {name} holds no {types} file; name another folder")
            if not found:
                yield from _rows(name, split, name, name, faults)


def documents_state(inputs: Iterable[str]) -> str:
    """A hash that changes when the files of `read_documents`' inputs do; of a hub data set, with its name."""
    return files_state((name, (path for _, path in _files(name))) for name in inputs)


def files_state(named: Iterable[tuple[str, Iterable[Path]]]) -> str:
    """A hash that changes when one of the files does, or a name in front of them."""
    state = hashlib.sha256()
    for name, files in named:
        state.update(name.encode())
        for file in files:
            known = file.stat()
            state.update(os.fsencode(file) + f" {known.st_size} {known.st_mtime_ns}".encode())
    return state.hexdigest()


def other_files(inputs: Iterable[str]) -> int:
    """How many files in the folders among the inputs are of no type that can be read."""
    known = (*TEXT_TYPES, *FILE_TYPES)
    files = (path for name in inputs for path in Path(name).rglob("*") if path.is_file())
    return sum(path.suffix.lower() not in known and not path.name.startswith(".") for path in files)


def text_files(folder: Path) -> list[Path]:
    """The documents of a folder, at any depth, in order."""
    # The data cards of questions that were made into the same folder are none.
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in TEXT_TYPES and not path.name.endswith(".card.md") and path.is_file()
    )


def read_text(path: Path) -> str:
    """The text of a document.

    Raises:
        UserError: it cannot be read or holds none.
    """
    text = TEXT_TYPES[path.suffix.lower()](path).strip()
    if not text:
        raise UserError(f"{path} holds no text; {_WHY_EMPTY.get(path.suffix.lower(), 'fill it')} or move it away")
    return text


def _plain(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}); convert it or move it away") from None


def _html(path: Path) -> str:
    """What the page says, without its navigation."""
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
            raise UserError(f"{path} is encrypted; decrypt it or move it away") from None
        raise UserError(f"{path} is no PDF that can be read ({first_line(error)}); mend it or move it away") from None


TEXT_TYPES: dict[str, Callable[[Path], str]] = {
    ".txt": _plain,
    ".md": _plain,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
"""How documents are read, by the end of their name."""
_WHY_EMPTY = dict.fromkeys((".html", ".htm"), "what it says was not found; write it as .txt or .md")
_WHY_EMPTY[".pdf"] = "recognise its pages if they are pictures,"


def _files(name: str) -> Iterator[tuple[Path | None, Path]]:
    """The files that are meant, each behind the folder that was named; none for a hub data set."""
    path = Path(name)
    if path.is_dir():
        tables = (one for one in path.rglob("*") if one.suffix.lower() in FILE_TYPES and one.is_file())
        yield from ((path, one) for one in sorted([*text_files(path), *tables]))
    elif path.suffix.lower() in (*TEXT_TYPES, *FILE_TYPES):
        if not path.is_file():
            raise UserError(f"input: no file {name}; check the path")
        yield None, path
    elif path.is_file():
        raise UserError(f"input: {name} is none of {', '.join((*TEXT_TYPES, *FILE_TYPES))}; convert or rename it")


def _source(name: str) -> str:
    return Path(name).resolve().name


def _rows(name: str, split: str, own: str, source: str, faults: Faults) -> Iterator[tuple[str, Text]]:
    numbers = count(1)

    def parse(row: Any, place: str) -> Text:
        return _document(row, place, f"{own}#{next(numbers)}", source)

    return parsed(places_and_rows(name, split, faults), parse, faults)


def _document(row: Any, place: str, name: str, source: str) -> Text:
    known: dict[str, Any] = row if isinstance(row, dict) else {}
    text, id, licence = (known.get(field) for field in ("text", "id", "licence"))
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{place}: the field text must be a text that is not empty; fill it or remove the document")
    usable = isinstance(id, str | int) and not isinstance(id, bool) and str(id).strip()
    id = str(id) if usable else name
    licence = licence if isinstance(licence, str) else ""
    return Text(id, text.strip().replace("\r\n", "\n"), source, licence)


def _check_name(name: str, path: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!r}: the file's name is not UTF-8; rename it") from None
