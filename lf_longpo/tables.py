"""Reading the rows of a JSONL, JSON or Parquet file or of a Hugging Face data set, each with its place.

The place ("file, line 7") is what an error about a row begins with.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError, first_line

FILE_TYPES = (".jsonl", ".json", ".parquet")


def places_and_rows(source: str, split: str = "train") -> Iterator[tuple[str, Any]]:
    """Streams the rows of a file or a hub data set, in order, each behind its place.

    Args:
        source: a .jsonl, .json (a list, or one object a line) or .parquet file, or a hub name such as `org/name` or
            `org/name:subset`.
        split: the split of a hub data set.

    Raises:
        UserError: the source is not there or cannot be read, naming file, line and mend. Rows are any JSON values.
    """
    path = Path(source)
    if path.suffix == ".jsonl" and path.is_file():
        return _jsonl(path)
    if path.suffix == ".json" and path.is_file():
        return _json(path)
    if path.suffix == ".parquet" and path.is_file():
        return _parquet(path)
    if path.exists():
        raise UserError(f"{source} is none of {', '.join(FILE_TYPES)}; convert it or name another file")
    if path.suffix in FILE_TYPES or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise UserError(f"no file {source}; check the path")
    return _hub(source, split)


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            place = f"{path}, line {number}"
            text = _decoded(raw, place).strip("\r\n \t")
            if number == 1:
                text = text.removeprefix("\ufeff")
            if text:
                try:
                    yield place, json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise UserError(f"{place} is not JSON: {error}; write one object a line") from None


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    text = _decoded(path.read_bytes(), str(path)).removeprefix("\ufeff")
    try:
        rows = json.loads(text)
    except ValueError as error:
        if getattr(error, "msg", "") == "Extra data":  # one object a line, as `datasets` also takes it
            yield from _jsonl(path)
            return
        raise UserError(f"{path} is not JSON: {error}; write one list, or one object a line") from None
    if not isinstance(rows, list):
        raise UserError(f"{path} must hold a list")
    for number, row in enumerate(rows, 1):
        yield f"{path}, record {number}", row


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, record {number}", row
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} is not a Parquet file that can be read: {first_line(error)}") from None


def _hub(name: str, split: str) -> Iterator[tuple[str, Any]]:
    from datasets import load_dataset

    repository, _, subset = name.partition(":")
    try:
        for number, row in enumerate(load_dataset(repository, subset or None, split=split, streaming=True), 1):
            yield f"{name} ({split}), record {number}", row
    except Exception as error:  # the library raises many kinds, all meaning that it is not to be had
        raise UserError(f"{name!r} is no file here and no data set that can be loaded: {first_line(error)}") from None


def _decoded(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{place} is not UTF-8 ({error.reason} at byte {error.start}); convert the file") from None
