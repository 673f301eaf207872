"""The list of a run's questions: which of them a page shows, and in which order."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from lf_longpo.data.choices import choice_key
from lf_longpo.data.review import Reviews
from lf_longpo.run_folder.question_records import QuestionLine, QuestionRecords
from lf_longpo.run_folder.question_states import QuestionState

CHOSEN = "pair chosen in review"
"""The state of a question without a pair of the run, with a pair that a reviewer has chosen."""
STATES = ("all", *(state.value for state in QuestionState), CHOSEN)


def _spread(line: QuestionLine) -> float:
    return -1.0 if line.lowest is None or line.highest is None else line.highest - line.lowest


def _highest(line: QuestionLine) -> float:
    return -1.0 if line.highest is None else line.highest


_Key = Callable[[QuestionLine], Any]
SORTS: dict[str, tuple[str, _Key]] = {
    "number": ("order of the input", lambda line: line.number),
    "state": ("state", lambda line: (list(QuestionState).index(line.state), line.reason, line.number)),
    "spread_down": ("largest reward difference", lambda line: (-_spread(line), line.number)),
    "spread_up": ("smallest reward difference", lambda line: (_spread(line), line.number)),
    "best_down": ("highest reward", lambda line: (-_highest(line), line.number)),
    "best_up": ("lowest highest reward", lambda line: (_highest(line), line.number)),
    "responses_down": ("most responses", lambda line: (-line.responses, line.number)),
}
"""The orders of the list: label and key."""


class QuestionFilter(NamedTuple):
    """The questions that a list shows, and their order."""

    text: str = ""
    """Text in the id, the question or the reason."""
    state: str = "all"
    """One of `STATES`."""
    sort: str = "number"
    """One of `SORTS`."""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> "QuestionFilter":
        """The filter in the parameters of an address; what cannot be read is ignored."""
        state, sort = values.get("state", "all"), values.get("sort", "number")
        text = values.get("text", "").strip()
        return cls(text, state if state in STATES else "all", sort if sort in SORTS else "number")

    @property
    def query(self) -> str:
        """The parameters of an address, as `of` reads them."""
        default = QuestionFilter()._asdict()
        return urlencode({name: value for name, value in self._asdict().items() if value != default[name]})


class QuestionIndex:
    """The questions of a run with their states.

    Args:
        records: the run's, started.
        reviews: the decisions about its pairs.
    """

    def __init__(self, records: QuestionRecords, reviews: Reviews) -> None:
        self._records = records
        self._reviews = reviews

    def found(self, question_filter: QuestionFilter) -> tuple[list[QuestionLine], Counter[str]]:
        """The questions that pass a filter, in its order, and the number of all questions by state."""
        counts: Counter[str] = Counter()
        found, wanted, choices = [], question_filter.text.casefold(), self._reviews.choices()
        for line in self._records.lines():
            state = state_of(line, choices)
            counts[state] += 1
            if question_filter.state in ("all", state) and (
                not wanted or any(wanted in text.casefold() for text in (line.id, line.text, line.reason))
            ):
                found.append(line)
        return sorted(found, key=SORTS[question_filter.sort][1]), counts


def state_of(line: QuestionLine, choices: Mapping[str, object]) -> str:
    """The name of a question's state; `choices` are those that a reviewer has made for questions without a pair."""
    chosen = choices and line.state is not QuestionState.PAIR and choice_key(line.id) in choices
    return CHOSEN if chosen else line.state.value
