"""The first row of a JSON file that the library `datasets` cannot load; its own errors do not name the row."""

from pathlib import Path

from lf_longpo.errors import UserError
from lf_longpo.files.tables import places_and_rows
from lf_longpo.plugin.dataset_files import files_of
from lf_longpo.plugin.row_shape import kind_of

_JSON = (".json", ".jsonl")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def load_fault(path: Path) -> str | None:
    """Describes the first fault for which `datasets` cannot load a JSON file or folder; None if none is found.

    Args:
        path: the file or folder.
    """
    try:
        files = [file for file in files_of(path) if file.suffix in _JSON]
        types: dict[str, str] = {}
        return next((fault for file in files if (fault := _file_fault(file, types))), None)
    except UserError as error:
        return str(error)


def _file_fault(file: Path, types: dict[str, str]) -> str | None:
    """Describes the first fault of one file; `types` has the types of columns so far and gets new ones.

    Raises:
        UserError: a row is not JSON, or holds half a character.
    """
    with file.open("rb") as start:
        if start.read(3) == _BYTE_ORDER_MARK:
            return f"{file} begins with a byte order mark; save it as UTF-8 without one"
    for place, row in places_and_rows(str(file)):
        if not isinstance(row, dict):
            return f"{place} is {kind_of(row)}, not an object; write one object for each row"
        for name, value in row.items():
            kind = kind_of(value)
            if value is not None and types.setdefault(name, kind) != kind:
                return f"{place}: {name!r} is {kind}, in earlier rows {types[name]}; write one type in all rows"
    return None
