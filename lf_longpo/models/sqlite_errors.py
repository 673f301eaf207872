"""What SQLite complains of, in words that people can act on."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lf_longpo.errors import UserError


@contextmanager
def plain_sqlite_errors(path: Path | None, instead: str) -> Iterator[None]:
    """Turns what goes wrong with a database, or with the JSON in it, into `UserError`.

    Args:
        path: the file.
        instead: what becomes of the work when it is moved away.
    """
    try:
        yield
    except (sqlite3.DatabaseError, ValueError) as error:
        # The module calls text that is none an operational error too, and quotes it.
        rotten = "decode" in str(error) or isinstance(error, ValueError)
        if isinstance(error, sqlite3.OperationalError) and not rotten:  # a full disk
            raise UserError(f"{path}: {error}; mend that and start the same command again") from None
        why = "what it holds is no text" if rotten else error
        raise UserError(f"{path} cannot be read ({why}); move it away, {instead}") from None
