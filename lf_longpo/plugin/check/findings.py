"""What a check found: errors, warnings and facts, in the order found."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """One thing found.

    Attributes:
        where: the setting, data set or file it is about.
        message: what is wrong and how to mend it.
    """

    where: str
    message: str


@dataclass
class Findings:
    """Errors end a run or ruin it for certain; warnings probably harm it; facts are what the run will be."""

    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def error(self, where: str, message: str) -> None:
        """Adds an error."""
        self.errors.append(Finding(where, message))

    def warn(self, where: str, message: str) -> None:
        """Adds a warning."""
        self.warnings.append(Finding(where, message))


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean ...?` for the most similar of `names`, or nothing where none is similar."""
    near = difflib.get_close_matches(name, list(names), n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""
