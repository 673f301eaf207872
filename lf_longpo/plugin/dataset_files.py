"""The files of data sets, of the types that LLaMA-Factory loads, and their first rows."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.errors import UserError, first_line
from lf_longpo.files.tables import places_and_rows

# Formats that the library `datasets` reads here, as in LLaMA-Factory (it infers the types of the cells of a .csv file),
# and its names for them.
_OTHER_FORMATS = {".csv": "csv", ".arrow": "arrow", ".txt": "text"}
TYPES = (".jsonl", ".json", ".parquet", *_OTHER_FORMATS)
"""The endings that LLaMA-Factory loads, in lower case only."""
# Rows that are read to find the columns and roles of a data set.
_FIRST_ROWS = 100


class FirstRows(NamedTuple):
    """The first rows of a data set.

    Attributes:
        source: file or folder of the data set.
        place: of the first row ("file, line 1").
        rows: up to 100.
        broken: why the next row cannot be read; None if it can.
    """

    source: Path
    place: str
    rows: list[dict[str, Any]]
    broken: str | None = None


def files_of(path: Path) -> list[Path]:
    """The files of a data set: the file itself, or all files of a folder.

    Raises:
        UserError: there are no files, or LLaMA-Factory does not load one of them.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} is empty; add files of one type to it: {', '.join(TYPES)}")
    for file in files:
        if not file.is_file():
            raise UserError(
                f"no file {file}; check the path"
                if file == path
                else f"{file} is not a file; remove it from the folder"
            )
        if file.suffix not in TYPES:
            lower = file.suffix.lower()
            fix = f"rename it to {file.stem}{lower}" if lower in TYPES else "convert it, or name another file"
            raise UserError(f"{file} has none of the types that LLaMA-Factory loads ({', '.join(TYPES)}); {fix}")
        # LLaMA-Factory treats .json and .jsonl as one type.
        if file.suffix.removesuffix("l") != files[0].suffix.removesuffix("l"):
            raise UserError(
                f"{file} and {files[0].name} have different types; LLaMA-Factory loads folders of one type: move the "
                "others away"
            )
    return files


def first_rows(path: Path) -> FirstRows:
    """Reads the first rows of a data set's file or folder.

    They end before a row that cannot be read. Only `longpo check` reads all rows.

    Raises:
        UserError: there are no files, or the first row is missing or cannot be read.
    """
    file = files_of(path)[0]
    other = file.suffix in _OTHER_FORMATS
    rows = _rows_of_other_format(file) if other else places_and_rows(str(file), halves=True)
    place, row = next(rows, (str(file), None))
    if not isinstance(row, dict):
        raise UserError(f"{place}: no row with named columns; write at least one")
    first = [row]
    try:
        for _, row in islice(rows, _FIRST_ROWS - 1):
            if isinstance(row, dict):
                first.append(row)
    except UserError as error:
        return FirstRows(path, place, first, str(error))
    return FirstRows(path, place, first)


def _rows_of_other_format(file: Path) -> Iterator[tuple[str, Any]]:
    from datasets import load_dataset

    try:
        rows = load_dataset(_OTHER_FORMATS[file.suffix], data_files=str(file), split="train", streaming=True)
        for number, row in enumerate(rows, 1):
            yield f"{file}, record {number}", row
    except Exception as error:  # the library raises many kinds for a file that it cannot read
        raise UserError(f"{file} cannot be read: {first_line(error)}") from None
