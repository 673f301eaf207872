"""Which pairs a list shows, and in which order: from an address, to an address, and in SQL."""

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from lf_longpo.longreward.scorer import DIMENSIONS

RATIO = "chosen_characters * 1.0 / MAX(rejected_characters, 1)"
"""The length of the chosen response divided by that of the rejected one, in SQL."""
SORTED_BY = {
    "number": "byte_offset",
    "gap": "gap",
    "ratio": RATIO,
    "prompt": "prompt_characters",
    "language": "language",
    "source": "source",
    "cut": "cut",
    "thinking": "thinking",
    "decision": "COALESCE(decision, 'undecided')",
    **{dimension: f"chosen.{dimension} - rejected.{dimension}" for dimension in DIMENSIONS},
}
"""What a list can be sorted by, in SQL."""
SORTS = {f"{name}_{direction}" for name in SORTED_BY for direction in ("up", "down")}
STATES = ("all", "undecided", "decided", "accept", "reject", "edit")
PROMPTS = ("all", "cut", "whole")
THINKING = ("all", "yes", "no")
# The values of a choice; the first is the default.
_CHOICES = {"state": STATES, "prompt": PROMPTS, "thinking": THINKING, "dimension": ("", *DIMENSIONS)}


class PairFilter(NamedTuple):
    """The pairs that a list shows, and their order."""

    text: str = ""
    """Text in the id, the question or a response."""
    state: str = "all"
    """One of `STATES`."""
    least_gap: float | None = None
    most_gap: float | None = None
    least_ratio: float | None = None
    most_ratio: float | None = None
    """See `RATIO`."""
    dimension: str = ""
    """The dimension of the next two, which are about the chosen response's score minus the rejected one's."""
    least_score: float | None = None
    most_score: float | None = None
    language: str = ""
    source: str = ""
    prompt: str = "all"
    """One of `PROMPTS`."""
    thinking: str = "all"
    """One of `THINKING`."""
    sort: str = "number_up"
    """One of `SORTS`."""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> "PairFilter":
        """The filter in the parameters of an address; what cannot be read is ignored."""
        given: dict[str, Any] = {name: values[name].strip() for name in cls._fields if values.get(name, "").strip()}
        for name in [name for name in given if name.startswith(("least_", "most_"))]:
            given[name] = _float_of(given[name])
        for name in [name for name, choices in _CHOICES.items() if given.get(name) not in choices]:
            given.pop(name, None)
        if given.get("sort") not in SORTS:
            given.pop("sort", None)
        return cls(**given)

    @property
    def fields(self) -> dict[str, Any]:
        """The parameters of an address, as `of` reads them; without those that have their default."""
        default = PairFilter()._asdict()
        return {name: value for name, value in self._asdict().items() if value != default[name]}

    @property
    def query(self) -> str:
        """The parameters of an address as a text."""
        return urlencode(self.fields)

    @property
    def filters(self) -> bool:
        """Whether it may exclude pairs."""
        return self._replace(sort=PairFilter().sort) != PairFilter()

    def conditions(self) -> tuple[str, list[Any]]:
        """The condition in SQL and its values."""
        conditions, values = ["1"], list[Any]()
        if self.text:
            escaped = self.text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
            conditions.append(r"searched LIKE ? ESCAPE '\'")
            values.append(f"%{escaped}%")
        if self.state == "decided":
            conditions.append("decision IS NOT NULL")
        elif self.state != "all":
            conditions.append("COALESCE(decision, 'undecided') = ?")
            values.append(self.state)
        measured = [("gap", self.least_gap, self.most_gap), (RATIO, self.least_ratio, self.most_ratio)]
        if self.dimension:
            measured.append((SORTED_BY[self.dimension], self.least_score, self.most_score))
        named: list[tuple[str, Any]] = [("language", self.language or None), ("source", self.source or None)]
        named.append(("cut", None if self.prompt == "all" else self.prompt == "cut"))
        named.append(("thinking", None if self.thinking == "all" else self.thinking == "yes"))
        compared = [(name, "=", value) for name, value in named]
        for name, least, most in measured:
            compared += [(name, ">=", least), (name, "<=", most)]
        for name, comparison, value in compared:
            if value is not None:
                conditions.append(f"{name} {comparison} ?")
                values.append(value)
        return " AND ".join(conditions), values

    @property
    def order(self) -> str:
        """The order in SQL. Pairs without a value come last in both directions."""
        name, _, direction = self.sort.rpartition("_")
        return f"{SORTED_BY[name]} {'DESC' if direction == 'down' else 'ASC'} NULLS LAST, byte_offset"


def _float_of(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
