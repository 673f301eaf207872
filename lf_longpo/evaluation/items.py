"""What a benchmark asks: questions that belong to sets, read from files or the hub as they were published."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lf_longpo.data.questions import Source
from lf_longpo.data.records import Question
from lf_longpo.errors import UserError
from lf_longpo.files.faults import Faults, parsed
from lf_longpo.files.tables import FILE_TYPES


@dataclass(frozen=True, slots=True)
class Item(Question):
    """One question of a benchmark."""

    set: str
    """The set that it belongs to, such as hotpotqa."""
    examples: tuple[tuple[str, float], ...] = ()
    """Answers with the ratings that people gave them, to show a judge its scale."""

    @property
    def key(self) -> str:
        """Tells it from all others; ids of several sets may be alike."""
        return key_of(self.set, self.id)


Placed = Iterator[tuple[str, Item]]
"""Items, each behind its place in its file."""


def key_of(set: str, id: str) -> str:
    """An item's `key`."""
    return f"{set}/{id}"


def item_of(question: Question, set: str, examples: tuple[tuple[str, float], ...] = ()) -> Item:
    """A question as one of a set."""
    return Item(question.id, question.question, question.answers, question.context, set, examples)


def read_sets(
    inputs: str | Sequence[str], split: str, item: Callable[[Any, str, str], Item | None], faults: Faults
) -> Placed:
    """Streams the items of files, folders and hub data sets, in order.

    Args:
        inputs: each a file, a folder of files, or a hub name, with `:SUBSET` behind it where it has several.
        split: of hub data sets.
        item: makes an item of a row, its place and the name of what it was read from; None for one to pass over.
        faults: takes the rows that cannot be used.

    Raises:
        UserError: an input that cannot be read, or two inputs of one name.
    """
    for stem, name in set_names(inputs).items():
        yield from parsed(Source(name, split).rows(faults), partial(item, stem=stem), faults)


def set_names(inputs: str | Sequence[str]) -> dict[str, str]:
    """The sets of `read_sets`' inputs: files and hub data sets, by what they are called after.

    Raises:
        UserError: two of one name.
    """
    known: dict[str, str] = {}
    for name in (name for given in ([inputs] if isinstance(inputs, str) else inputs) for name in _files(given)):
        other = known.setdefault(_set_name(name), name)
        if other is not name:
            raise UserError(f"input: {other} and {name} are sets of one name; rename one of them")
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
