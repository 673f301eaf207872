"""Writing rows as JSONL or Parquet, whole or not at all, however many they are."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError, first_line
from lf_longpo.journal import Row, check_folder, replacing, write_whole

TYPES = (".jsonl", ".parquet")
# Rows of a Parquet row group: with 64k tokens each some megabytes.
_GROUP = 64


def write_rows(target: Path, rows: Iterable[Row]) -> int:
    """Writes rows and gives their number.

    Raises:
        UserError: the target is of another type, there are no rows, or columns hold values of several types.
    """
    if target.suffix not in TYPES:
        raise UserError(f"{target} must end in {' or '.join(TYPES)}")
    check_folder(target.parent, "output")
    number = 0

    def counted() -> Iterator[Row]:
        nonlocal number
        for row in rows:
            number += 1
            yield row
        if not number:
            raise UserError(f"there are no rows to write; {target} was not written")

    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in counted())
    try:
        if target.suffix == ".jsonl":
            write_whole(target, lines)
        else:
            _write_parquet(target, lines)
    except UnicodeEncodeError:
        raise UserError(f"{target}: row {number} holds half of a letter; mend or reject it") from None
    return number


def _write_parquet(target: Path, lines: Iterator[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    target.parent.mkdir(parents=True, exist_ok=True)
    schema = pyarrow.schema([])
    try:
        # Twice: what a column holds is only known when all rows were seen.
        with tempfile.TemporaryFile("w+", encoding="utf-8", dir=target.parent) as plain, replacing(target) as made:
            for batch in _batches(lines):
                plain.writelines(batch)
                schema = pyarrow.unify_schemas(
                    [schema, pyarrow.table(_columns(batch)).schema], promote_options="permissive"
                )
            plain.seek(0)
            with parquet.ParquetWriter(made, schema, compression="zstd") as writer:
                for batch in _batches(plain):
                    columns = _columns(batch)
                    arrays = [pyarrow.array(columns.get(one.name, [None] * len(batch)), one.type) for one in schema]
                    writer.write_table(pyarrow.table(arrays, schema=schema))
    except pyarrow.ArrowException as error:
        raise UserError(
            f"{target}: a column holds values of several types ({first_line(error)}); write .jsonl"
        ) from None


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    source = iter(lines)
    while batch := list(islice(source, _GROUP)):
        yield batch


def _columns(lines: Sequence[str]) -> dict[str, list[Any]]:
    rows = [json.loads(line) for line in lines]
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
