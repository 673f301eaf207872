"""SQLite's errors as messages with a fix."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lf_longpo.errors import UserError


@contextmanager
def plain_sqlite_errors(path: Path | None, instead: str) -> Iterator[None]:
    """Turns errors of a database, or of the JSON in it, into `UserError`.

    Args:
        path: the file.
        instead: what happens to the work if the file is moved away.
    """
    try:
        yield
    except (sqlite3.DatabaseError, ValueError) as error:
        # Text that is not UTF-8 is an OperationalError too, and its message quotes the text.
        undecodable = "decode" in str(error) or isinstance(error, ValueError)
        if isinstance(error, sqlite3.OperationalError) and not undecodable:  # a full disk
            raise UserError(f"{path}: {error}; fix this and run the same command again") from None
        why = "its content is not text" if undecodable else error
        raise UserError(f"{path} cannot be read ({why}); move it away, {instead}") from None
