"""Which pairs a list shows, and in which order: from an address, to an address, and in SQL."""

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

SORTS = {
    "number": ("order of the file", "byte_offset"),
    "gap_down": ("largest reward gap", "gap DESC, number"),
    "gap_up": ("smallest reward gap", "gap, number"),
    "longer": ("chosen longer than rejected", "chosen_characters - rejected_characters DESC, number"),
    "shorter": ("chosen shorter than rejected", "chosen_characters - rejected_characters, number"),
    "prompt_down": ("longest prompt", "prompt_characters DESC, number"),
}
"""The orders of a list: label and SQL."""
STATES = ("all", "undecided", "accept", "reject", "edit")


class PairFilter(NamedTuple):
    """The pairs that a list shows, and their order."""

    text: str = ""
    """Text in the id, the question or a response."""
    state: str = "all"
    """One of `STATES`."""
    least_gap: float | None = None
    most_gap: float | None = None
    sort: str = "number"
    """One of `SORTS`."""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> "PairFilter":
        """The filter in the parameters of an address; what cannot be read is ignored."""
        state, sort = values.get("state", "all"), values.get("sort", "number")
        return cls(
            values.get("text", "").strip(),
            state if state in STATES else "all",
            _float_of(values.get("least_gap")),
            _float_of(values.get("most_gap")),
            sort if sort in SORTS else "number",
        )

    @property
    def query(self) -> str:
        """The parameters of an address, as `of` reads them."""
        default = PairFilter()._asdict()
        return urlencode({name: value for name, value in self._asdict().items() if value != default[name]})

    def conditions(self) -> tuple[str, list[Any]]:
        """The condition in SQL and its values."""
        conditions, values = ["1"], list[Any]()
        if self.text:
            escaped = self.text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
            conditions.append(r"searched LIKE ? ESCAPE '\'")
            values.append(f"%{escaped}%")
        if self.state != "all":
            conditions.append("COALESCE(decision, 'undecided') = ?")
            values.append(self.state)
        for value, comparison in ((self.least_gap, ">="), (self.most_gap, "<=")):
            if value is not None:
                conditions.append(f"gap {comparison} ?")
                values.append(value)
        return " AND ".join(conditions), values


def _float_of(text: str | None) -> float | None:
    try:
        return float(text) if text and text.strip() else None
    except ValueError:
        return None
