"""One error for all bad rows of an input, so that you can fix them together."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from lf_longpo.errors import UserError

T = TypeVar("T")

# How many errors are listed; the rest are counted.
_LISTED = 10


class Faults:
    """Collects errors about rows. At the end of its `with` block, one error lists the first ten and counts all.

    Args:
        things: what the rows are, in the plural.
    """

    def __init__(self, things: str = "rows") -> None:
        self._things = things
        self._number = 0
        self._first: list[str] = []

    def __bool__(self) -> bool:
        return self._number > 0

    def add(self, fault: Exception) -> None:
        """Adds the error of one row."""
        self._number += 1
        if len(self._first) < _LISTED:
            self._first.append(str(fault))

    def refusal(self) -> str:
        """The message of an error about the collected rows."""
        if self._number == 1:
            return self._first[0]
        return f"{self._number:,} {self._things} cannot be used:\n{self._listed()}"

    def warning(self) -> str:
        """The text of a warning about the collected rows, if the work continues without them."""
        return f"skipped {self._things}: {self._number:,}\n{self._listed()}"

    def _listed(self) -> str:
        rest = self._number - len(self._first)
        return "\n".join([*self._first, *([f"... and {rest:,} more"] if rest else [])])

    def __enter__(self) -> "Faults":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self:
            raise UserError(self.refusal())


class _AtOnce(Faults):
    def add(self, fault: Exception) -> None:
        raise fault


AT_ONCE = _AtOnce()
"""Raises the first error at once: for input that was checked before."""


def parsed(
    rows: Iterable[tuple[str, Any]], parse: Callable[[Any, str], T | None], faults: Faults
) -> Iterator[tuple[str, T]]:
    """Streams the results of `parse`, each with its row's location.

    Args:
        rows: rows, each with its location.
        parse: gets a row and its location; returns None to skip the row, or raises `UserError` to refuse it.
        faults: collects the errors of the refused rows.
    """
    for location, row in rows:
        try:
            result = parse(row, location)
        except UserError as fault:
            faults.add(fault)
        else:
            if result is not None:
                yield location, result


def together(placed: Iterable[tuple[str, T]], faults: Faults) -> Iterator[T]:
    """Streams rows without their locations; after the last row, raises what `faults` has collected.

    Raises:
        UserError: there are collected errors.
    """
    with faults:
        for _, row in placed:
            yield row
