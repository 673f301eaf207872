"""Reading the rows of a JSONL, JSON, Parquet or CSV file or of a Hugging Face data set, each with its location.

An error about a row begins with the row's location, such as "questions.jsonl, line 7".
"""

import csv
import json
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError, first_line
from lf_longpo.files.faults import AT_ONCE, Faults
from lf_longpo.text.halves import refuse_halves

PlacedRows = Iterator[tuple[str, Any]]
# A clone without Git LFS has small text files that begin like this instead of large files.
_POINTER = b"version https://git-lfs.github.com/spec/"


def places_and_rows(source: str, split: str = "train", faults: Faults = AT_ONCE, halves: bool = False) -> PlacedRows:
    """Streams the rows of a file or a hub data set in order, each with its location. A row is any JSON value.

    Args:
        source: a file of one of `FILE_TYPES` (.json: a list, or one object per line; .csv: with a header), or a data
            set on the hub such as `org/name` or `org/name:subset`.
        split: the split of a hub data set.
        faults: collects the errors of rows that cannot be read.
        halves: whether rows may hold half characters, see `text.halves`.

    Raises:
        UserError: the source is missing or cannot be read at all; the message names the file, the line and the fix.
    """
    path = Path(source)
    known = path.suffix.lower() in FILE_TYPES
    if known and path.is_file():
        _refuse_pointer(path)
        rows = _READERS[path.suffix.lower()](path, faults)
        return rows if halves else _without_halves(rows, faults)
    if path.exists():
        raise UserError(f"{source} is not one of {', '.join(FILE_TYPES)}; convert it or name another file")
    if known or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise UserError(f"there is no file {source}; check the path")
    return _hub(source, split)


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UserError(f"{path} is a Git LFS pointer, not the data; run git lfs pull")


def _jsonl(path: Path, faults: Faults) -> PlacedRows:
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            location = f"{path}, line {number}"
            raw = raw.removeprefix(BOM_UTF8) if number == 1 else raw
            try:
                text = _decoded(raw, location).strip("\r\n \t")
                row = _value(text, location, "write one object per line") if text else None
            except UserError as fault:
                faults.add(fault)
            else:
                if text:
                    yield location, row


def _json(path: Path, faults: Faults) -> PlacedRows:
    raw = path.read_bytes().removeprefix(BOM_UTF8)
    listed = raw.lstrip().startswith(b"[")
    try:
        value = _value(_decoded(raw, str(path)), str(path), "write one list, or one object per line")
    except UserError:
        if listed:
            raise
        yield from _jsonl(path, faults)  # many tools use this ending for JSON lines
    else:
        for number, row in enumerate(value if listed else [value], 1):
            yield f"{path}, record {number}", row


def _parquet(path: Path, faults: Faults) -> PlacedRows:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, record {number}", row
    except (ArrowException, OSError, ValueError, OverflowError) as error:  # ValueError: a text that is not UTF-8
        raise UserError(
            f"{path} cannot be read as Parquet (after record {number}): {first_line(error)}; write it again"
        ) from None


def _csv(path: Path, faults: Faults) -> PlacedRows:
    csv.field_size_limit(sys.maxsize)  # a context is one cell
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = csv.reader(file, strict=True)
        try:
            names = next(cells, [])
            if len(set(names)) < len(names):
                raise UserError(f"{path}, line 1: two columns have the same name; rename one")
            begin = cells.line_num + 1
            for row in cells:
                location, begin = f"{path}, line {begin}", cells.line_num + 1
                if len(row) == len(names):
                    yield location, dict(zip(names, row, strict=True))
                elif row:
                    faults.add(
                        UserError(
                            f"{location}: {len(row)} cells, but the header has {len(names)}; put quotes around cells "
                            "with commas or line breaks"
                        )
                    )
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 ({error.reason}, after line {cells.line_num}); convert it") from None
        except csv.Error as error:
            raise UserError(f"{path}, line {cells.line_num}: not CSV: {error}; double the quotes in a cell") from None


_READERS = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet, ".csv": _csv}
FILE_TYPES = tuple(_READERS)


def _hub(name: str, split: str) -> PlacedRows:
    from datasets import load_dataset

    repository, _, subset = name.partition(":")
    try:
        for number, row in enumerate(load_dataset(repository, subset or None, split=split, streaming=True), 1):
            yield f"{name} ({split}), record {number}", row
    except Exception as error:  # the library raises errors of many types if it cannot load the data set
        raise UserError(
            f"{name!r} is neither a file nor a data set that can be loaded ({first_line(error)}); check the name"
        ) from None


def _value(text: str, location: str, fix: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        fault = str(error).replace("line 1 column", "column")  # the text is one line of a file
        raise UserError(f"{location} is not JSON: {fault}; {fix}") from None


def _without_halves(rows: PlacedRows, faults: Faults) -> PlacedRows:
    for location, row in rows:
        try:
            refuse_halves(row, location)
        except UserError as fault:
            faults.add(fault)
        else:
            yield location, row


def check_halves(source: str) -> None:
    """Refuses a JSON file with half characters: LLaMA-Factory's loader fails on some of them and drops others.

    Raises:
        UserError: rows hold half characters; the message names the rows.
    """
    if Path(source).suffix.lower() in (".jsonl", ".json"):
        unreadable = Faults()  # `longpo check` reports these
        with Faults() as faults:
            for _ in _without_halves(places_and_rows(source, faults=unreadable, halves=True), faults):
                pass


def _decoded(raw: bytes, location: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{location} is not UTF-8 ({error.reason} at byte {error.start}); convert the file") from None
