"""The files of data sets that LLaMA-Factory loads, and their first rows."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.errors import UserError, first_line
from lf_longpo.files.tables import places_and_rows

# Read by the library `datasets`, as LLaMA-Factory does: it gives the cells of a .csv file types. It has its own names
# for these formats.
_OTHER_FORMATS = {".csv": "csv", ".arrow": "arrow", ".txt": "text"}
TYPES = (".jsonl", ".json", ".parquet", *_OTHER_FORMATS)
"""What LLaMA-Factory loads; it compares endings as they are written, in lower case."""
# Rows that are looked at to see which columns and roles there are.
_LOOKED_AT = 100


class FirstRows(NamedTuple):
    """The first rows of a data set.

    Attributes:
        source: its file or folder.
        place: of the very first row ("file, line 1").
        rows: up to 100.
        broken: why the row after them cannot be read; None where it can.
    """

    source: Path
    place: str
    rows: list[dict[str, Any]]
    broken: str | None = None


def files_of(path: Path) -> list[Path]:
    """The files of a data set: the file itself, or all files of a folder.

    Raises:
        UserError: there is none, or LLaMA-Factory would not load one of them.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} is empty; put files of one type into it: {', '.join(TYPES)}")
    for file in files:
        if not file.is_file():
            raise UserError(f"no file {file}; check the path" if file == path else f"{file} is no file; move it away")
        if file.suffix not in TYPES:
            lower = file.suffix.lower()
            fix = f"rename it to {file.stem}{lower}" if lower in TYPES else "convert it or name another file"
            raise UserError(f"{file} is none of {', '.join(TYPES)}, which LLaMA-Factory loads; {fix}")
        # .json and .jsonl are one type to LLaMA-Factory.
        if file.suffix.removesuffix("l") != files[0].suffix.removesuffix("l"):
            raise UserError(f"{file} and {files[0].name} have different types; LLaMA-Factory loads folders of one type")
    return files


def first_rows(path: Path) -> FirstRows:
    """Reads the first rows of a data set's file or folder.

    A row further on that cannot be read ends them. Only `longpo check` reads all rows.

    Raises:
        UserError: there are no files, or the first row is missing or cannot be read.
    """
    file = files_of(path)[0]
    other = file.suffix in _OTHER_FORMATS
    rows = _rows_of_other_format(file) if other else places_and_rows(str(file), halves=True)
    place, row = next(rows, (str(file), None))
    if not isinstance(row, dict):
        raise UserError(f"{place}: no rows with named columns; a data set needs at least one")
    looked_at = [row]
    try:
        for _, row in islice(rows, _LOOKED_AT - 1):
            if isinstance(row, dict):
                looked_at.append(row)
    except UserError as error:
        return FirstRows(path, place, looked_at, str(error))
    return FirstRows(path, place, looked_at)


def _rows_of_other_format(file: Path) -> Iterator[tuple[str, Any]]:
    from datasets import load_dataset

    try:
        rows = load_dataset(_OTHER_FORMATS[file.suffix], data_files=str(file), split="train", streaming=True)
        for number, row in enumerate(rows, 1):
            yield f"{file}, record {number}", row
    except Exception as error:  # the library raises many kinds, all meaning that it cannot be read
        raise UserError(f"{file} cannot be read: {first_line(error)}") from None
