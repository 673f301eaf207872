"""A part of a report, without its layout."""

from dataclasses import dataclass, field

from lf_longpo.report.figures import Plot


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
