"""The items of a benchmark: questions in sets, read from files or the hub as published."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_longpo.data.questions import Source
from lf_longpo.data.records import Question
from lf_longpo.errors import UserError
from lf_longpo.files.faults import Faults, parsed
from lf_longpo.files.journal import Row
from lf_longpo.files.tables import FILE_TYPES


@dataclass(frozen=True, slots=True)
class Item(Question):
    """A question of a benchmark."""

    set: str
    """The name of its set, such as hotpotqa."""
    examples: tuple[tuple[str, float], ...] = ()
    """Answers with human ratings, which show a judge the scale."""

    @property
    def key(self) -> str:
        """Identifies it among all sets, which may have ids in common."""
        return key_of(self.set, self.id)


Placed = Iterator[tuple[str, Item]]
"""Items, each with its place (file and line)."""


def key_of(set: str, id: str) -> str:
    """The `key` of an item."""
    return f"{set}/{id}"


def key_of_row(row: Row) -> str | None:
    """The key of the item of a row of predictions; None if the row names none."""
    set, id = row.get("set"), row.get("id")
    return key_of(set, id) if isinstance(set, str) and isinstance(id, str) else None


def item_of(question: Question, set: str, examples: tuple[tuple[str, float], ...] = ()) -> Item:
    """The item of a question in a set."""
    return Item(question.id, question.question, question.answers, question.context, set, examples)


def read_sets(
    inputs: str | Sequence[str], split: str, item: Callable[[Any, str, str], Item | None], faults: Faults
) -> Placed:
    """Streams the items of files, folders and hub data sets, in order.

    Args:
        inputs: files, folders of files, or hub names (NAME:SUBSET for a data set with several subsets).
        split: the split of hub data sets.
        item: makes an item from a row, its place and the name of the set; gives None for a row to skip.
        faults: takes the rows that cannot be used.

    Raises:
        UserError: an input cannot be read, or two inputs have the same name.
    """
    for stem, name in set_names(inputs).items():
        yield from parsed(Source(name, split).rows(faults), _parser(item, stem), faults)


def _parser(item: Callable[[Any, str, str], Item | None], stem: str) -> Callable[[Any, str], Item | None]:
    return lambda row, place: item(row, place, stem)


def set_names(inputs: str | Sequence[str]) -> dict[str, str]:
    """The files and hub data sets of `read_sets`, by the names of their sets.

    Raises:
        UserError: two have the same name.
    """
    known: dict[str, str] = {}
    for name in (name for given in ([inputs] if isinstance(inputs, str) else inputs) for name in _files(given)):
        first = known.setdefault(_set_name(name), name)
        if first is not name:
            raise UserError(f"input: {first} and {name} give two sets the same name; rename a file")
    return known


def _set_name(name: str) -> str:
    if Path(name).suffix.lower() in FILE_TYPES:
        return Path(name).stem
    return name.rpartition(":" if ":" in name else "/")[2]


def _files(name: str) -> list[str]:
    folder = Path(name)
    if not folder.is_dir():
        return [name]
    files = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in FILE_TYPES)
    if not files:
        raise UserError(f"{name} holds no {', '.join(FILE_TYPES)} file; name another folder")
    return files
