"""What a benchmark asks: questions that belong to sets, read from files or the hub as they were published."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.questions import Source
from lf_longpo.records import Question
from lf_longpo.tables import FILE_TYPES


@dataclass(frozen=True, slots=True)
class Item(Question):
    """One question of a benchmark."""

    set: str
    """The set that it belongs to, such as hotpotqa."""
    examples: tuple[tuple[str, float], ...] = ()
    """Answers with the ratings that people gave them, to show a judge its scale."""


Placed = Iterator[tuple[str, Item]]
"""Items, each behind its place in its file."""


def read_sets(inputs: str | Sequence[str], split: str, item: Callable[[Any, str, str], Item | None]) -> Placed:
    """Streams the items of files, folders and hub data sets, in order.

    Ids of several sets may be alike, so they get their set's name in front where there is more than one input.

    Args:
        inputs: each a file, a folder of files, or a hub name, with `:SUBSET` behind it where it has several.
        split: of hub data sets.
        item: makes an item of a row, its place and the name of what it was read from; None for one to pass over.

    Raises:
        UserError: an input or a row that cannot be used.
    """
    names = [name for given in ([inputs] if isinstance(inputs, str) else inputs) for name in _files(given)]
    for name in names:
        stem = set_name(name)
        for place, row in Source(name, split).rows():
            if made := item(row, place, stem):
                yield place, made if len(names) == 1 else _within(made, stem)


def set_name(name: str) -> str:
    """The set that a file or hub data set is called after."""
    if Path(name).suffix in FILE_TYPES:
        return Path(name).stem
    return name.rpartition(":" if ":" in name else "/")[2]


def _within(item: Item, stem: str) -> Item:
    return Item(f"{stem}/{item.id}", item.question, item.answers, item.context, item.set, item.examples)


def _files(name: str) -> list[str]:
    folder = Path(name)
    if not folder.is_dir():
        return [name]
    files = sorted(str(path) for path in folder.iterdir() if path.suffix in FILE_TYPES)
    if not files:
        raise UserError(f"{name} holds no {', '.join(FILE_TYPES)} file; name another folder")
    return files
