"""Parts of a report, without their layout."""

from dataclasses import dataclass, field
from typing import Protocol

from lf_longpo.files.journal import Row
from lf_longpo.report.figures import Plot


@dataclass(frozen=True, slots=True)
class Rewards:
    """What the sentences at the top of the page need of a run's rewards."""

    lowest: float = 0.0
    """The share of the rewards that are 0."""
    best: float = 0.0
    """The share of the rewards that are the best reward."""
    differences: list[float] = field(default_factory=list)
    """See `conclusions.trend_of`; empty without rounds."""
    first: float = 0.0
    """The mean reward in the first third of the rounds."""
    last: float = 0.0


@dataclass(slots=True)
class Section:
    """Facts, plots and a table under one heading."""

    title: str
    facts: dict[str, str] = field(default_factory=dict)
    plots: list[Plot] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    """The header of the table, if there is one."""
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """Shown at the top of the page."""
    rewards: Rewards | None = None
    """In a method's first section: the rewards of its responses."""


class MethodFigures(Protocol):
    """Collects the figures of a method's responses, and makes the sections about them."""

    def add(self, row: Row) -> None:
        """Takes a rollout, or a scored response."""
        ...

    def sections(self) -> list[Section]:
        """The sections about all responses."""
        ...
