"""Writing any number of rows as JSONL or Parquet, completely or not at all."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.errors import UserError, first_line
from lf_longpo.files.journal import Row, check_folder, replacing, write_whole

if TYPE_CHECKING:
    import pyarrow

TYPES = (".jsonl", ".parquet")
# The number of rows of a Parquet row group; with 64k tokens per row, a group has some megabytes.
_GROUP = 64


def write_rows(target: Path, rows: Iterable[Row]) -> int:
    """Writes rows to a file.

    Args:
        target: a file that ends in one of `TYPES`.
        rows: JSON objects.

    Returns:
        The number of rows.

    Raises:
        UserError: the target has another ending, there are no rows, or a column holds values of several types.
    """
    if target.suffix not in TYPES:
        raise UserError(f"{target} must end in {' or '.join(TYPES)}; rename it")
    check_folder(target.parent, "output")
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for row in rows:
            number += 1
            line = json.dumps(row, ensure_ascii=False) + "\n"
            try:
                line.encode()
            except UnicodeEncodeError as error:  # can come from a journal that another program wrote
                half = f"\\u{ord(line[error.start]):04x}"
                raise UserError(
                    f"{target}: row {number} holds {half}, half of a character (a lone surrogate); replace it in the "
                    "run's files or remove the row"
                ) from None
            yield line
        if not number:
            raise UserError(f"there are no rows to write, so {target} was not written; name another data set or run")

    if target.suffix == ".jsonl":
        write_whole(target, lines())
    else:
        _write_parquet(target, lines())
    return number


def _write_parquet(target: Path, lines: Iterator[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    target.parent.mkdir(parents=True, exist_ok=True)
    schema = pyarrow.schema([])
    try:
        # Two passes: the type of a column is known only after all rows.
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=target.parent) as plain,
            replacing(target) as file,
        ):
            for batch in _batches(lines):
                plain.writelines(batch)
                found = pyarrow.schema([(name, _type_of(name, values)) for name, values in _columns(batch).items()])
                schema = pyarrow.unify_schemas([schema, found], promote_options="permissive")
            plain.seek(0)
            with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
                for batch in _batches(plain):
                    columns = _columns(batch)
                    arrays = [
                        pyarrow.array(columns.get(field.name, [None] * len(batch)), field.type) for field in schema
                    ]
                    writer.write_table(pyarrow.table(arrays, schema=schema))
    except pyarrow.ArrowException as error:
        raise UserError(
            f"{target}: Parquet cannot hold values of several types, or numbers of more than 64 bits "
            f"({first_line(error)}); write .jsonl"
        ) from None


def _type_of(name: str, values: list[Any]) -> "pyarrow.DataType":
    import pyarrow

    try:
        return pyarrow.array(values).type
    except (pyarrow.ArrowException, OverflowError) as error:  # OverflowError: a number of more than 64 bits
        raise pyarrow.ArrowInvalid(f"column {name}: {first_line(error)}") from None


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    source = iter(lines)
    while batch := list(islice(source, _GROUP)):
        yield batch


def _columns(lines: Sequence[str]) -> dict[str, list[Any]]:
    rows = [json.loads(line) for line in lines]
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
