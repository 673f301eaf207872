"""Reading the rows of a JSONL, JSON, Parquet or CSV file or of a Hugging Face data set, each with its place.

The place ("file, line 7") is what an error about a row begins with.
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
# What a clone without Git LFS has in the place of a large file.
_POINTER = b"version https://git-lfs.github.com/spec/"


def places_and_rows(source: str, split: str = "train", faults: Faults = AT_ONCE, halves: bool = False) -> PlacedRows:
    """Streams the rows of a file or a hub data set, in order, each after its place. Rows are any JSON values.

    Args:
        source: a file of one of `FILE_TYPES` (.json: a list, or one object a line; .csv: with a header), or a hub name
            such as `org/name` or `org/name:subset`.
        split: the split of a hub data set.
        faults: takes the rows that cannot be read.
        halves: whether rows may hold half characters, see `text.halves`.

    Raises:
        UserError: the source is missing or cannot be read at all; the message names file, line and fix.
    """
    path = Path(source)
    known = path.suffix.lower() in FILE_TYPES
    if known and path.is_file():
        _refuse_pointer(path)
        rows = _READERS[path.suffix.lower()](path, faults)
        return rows if halves else _without_halves(rows, faults)
    if path.exists():
        raise UserError(f"{source} is none of {', '.join(FILE_TYPES)}; convert it or name another file")
    if known or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise UserError(f"no file {source}; check the path")
    return _hub(source, split)


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UserError(f"{path} is a pointer of Git LFS and not the data; run git lfs pull")


def _jsonl(path: Path, faults: Faults) -> PlacedRows:
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            place = f"{path}, line {number}"
            raw = raw.removeprefix(BOM_UTF8) if number == 1 else raw
            try:
                text = _decoded(raw, place).strip("\r\n \t")
                row = _value(text, place, "write one object a line") if text else None
            except UserError as fault:
                faults.add(fault)
            else:
                if text:
                    yield place, row


def _json(path: Path, faults: Faults) -> PlacedRows:
    raw = path.read_bytes().removeprefix(BOM_UTF8)
    listed = raw.lstrip().startswith(b"[")
    try:
        value = _value(_decoded(raw, str(path)), str(path), "write one list, or one object a line")
    except UserError:
        if listed:
            raise
        yield from _jsonl(path, faults)  # many tools write JSON lines under this name
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
            f"{path} is no Parquet file that can be read (after record {number}): {first_line(error)}; write it again"
        ) from None


def _csv(path: Path, faults: Faults) -> PlacedRows:
    csv.field_size_limit(sys.maxsize)  # a context is one cell
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = csv.reader(file, strict=True)
        try:
            names = next(cells, [])
            if len(set(names)) < len(names):
                raise UserError(f"{path}, line 1: two columns have one name; rename one of them")
            begin = cells.line_num + 1
            for row in cells:
                place, begin = f"{path}, line {begin}", cells.line_num + 1
                if len(row) == len(names):
                    yield place, dict(zip(names, row, strict=True))
                elif row:
                    faults.add(
                        UserError(
                            f"{place}: {len(row)} cells, and the header has {len(names)}; put quotes around cells that "
                            "hold commas or line breaks"
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
    except Exception as error:  # the library raises many kinds, all meaning that it is not to be had
        raise UserError(f"{name!r} is no file here and no data set that can be loaded: {first_line(error)}") from None


def _value(text: str, place: str, fix: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        fault = str(error).replace("line 1 column", "column")  # of a text that is one line of a file
        raise UserError(f"{place} is not JSON: {fault}; {fix}") from None


def _without_halves(rows: PlacedRows, faults: Faults) -> PlacedRows:
    for place, row in rows:
        try:
            refuse_halves(row, place)
        except UserError as fault:
            faults.add(fault)
        else:
            yield place, row


def check_halves(source: str) -> None:
    """Refuses a JSON file with half characters, of which LLaMA-Factory's loader refuses some and drops others.

    Raises:
        UserError: it names the rows.
    """
    if Path(source).suffix.lower() in (".jsonl", ".json"):
        unreadable = Faults()  # longpo check reports those
        with Faults() as faults:
            for _ in _without_halves(places_and_rows(source, faults=unreadable, halves=True), faults):
                pass


def _decoded(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{place} is not UTF-8 ({error.reason} at byte {error.start}); convert the file") from None
