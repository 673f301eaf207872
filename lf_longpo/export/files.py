"""Writing rows as JSONL or Parquet, whole or not at all, however many they are."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from lf_longpo.errors import UserError, first_line
from lf_longpo.journal import Row, check_folder, write_whole

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

    if target.suffix == ".jsonl":
        write_whole(target, (json.dumps(row, ensure_ascii=False) + "\n" for row in counted()))
    else:
        _write_parquet(target, counted())
    return number


def _write_parquet(target: Path, rows: Iterator[Row]) -> None:
    import pyarrow
    from pyarrow import parquet

    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        first = list(islice(rows, _GROUP))
        table = pyarrow.Table.from_pylist(first)
        with parquet.ParquetWriter(name, table.schema, compression="zstd") as writer:
            writer.write_table(table)
            while batch := list(islice(rows, _GROUP)):
                writer.write_table(pyarrow.Table.from_pylist(batch, schema=table.schema))
        os.chmod(name, 0o644)
        os.replace(name, target)
    except pyarrow.ArrowException as error:
        os.unlink(name)
        raise UserError(
            f"{target}: a column holds values of several types ({first_line(error)}); write .jsonl"
        ) from None
    except BaseException:
        os.unlink(name)
        raise
