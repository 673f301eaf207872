"""All bad rows of an input in one error, so that they can be fixed together."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from lf_longpo.errors import UserError

T = TypeVar("T")

# Faults that are listed; the others are counted.
_SHOWN = 10


class Faults:
    """Collects errors about rows; where its `with` block ends, one error lists the first ten and counts all.

    Args:
        things: what is counted, in the plural.
    """

    def __init__(self, things: str = "rows") -> None:
        self._things = things
        self._number = 0
        self._first: list[str] = []

    def __bool__(self) -> bool:
        return self._number > 0

    def add(self, fault: Exception) -> None:
        """Takes one more."""
        self._number += 1
        if len(self._first) < _SHOWN:
            self._first.append(str(fault))

    def refusal(self) -> str:
        """What an error says that refuses them."""
        if self._number == 1:
            return self._first[0]
        return f"{self._number:,} {self._things} cannot be used:\n{self._listed()}"

    def passed_over(self) -> str:
        """What a remark says about them where the work goes on without them."""
        return f"{self._things} that were passed over: {self._number:,}\n{self._listed()}"

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
"""Raises the first fault where it is found: for input that was checked before."""


def parsed(
    rows: Iterable[tuple[str, Any]], parse: Callable[[Any, str], T | None], faults: Faults
) -> Iterator[tuple[str, T]]:
    """Streams what `parse` makes of each row, after the row's place.

    Args:
        rows: each after its place.
        parse: takes a row and its place; None passes the row over, a `UserError` refuses it.
        faults: takes the refused rows.
    """
    for place, row in rows:
        try:
            made = parse(row, place)
        except UserError as fault:
            faults.add(fault)
        else:
            if made is not None:
                yield place, made


def together(placed: Iterable[tuple[str, T]], faults: Faults) -> Iterator[T]:
    """Streams rows without their places, and in the end raises what `faults` took meanwhile."""
    with faults:
        for _, row in placed:
            yield row
