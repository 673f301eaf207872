"""The results of a check: errors, warnings and facts, in the order in which they were found."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """An error or a warning.

    Attributes:
        where: the setting, data set or file that it concerns.
        message: what is wrong and how to fix it.
    """

    where: str
    message: str


@dataclass
class Findings:
    """Errors stop or spoil a run; warnings probably harm it; facts describe the run."""

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
    """`; did you mean ...?` with the most similar of `names`, or an empty text if none is similar."""
    near = difflib.get_close_matches(name, list(names), n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""
