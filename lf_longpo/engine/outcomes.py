"""What becomes of questions and responses, counted for the summary of a run."""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

from lf_longpo.engine.progress import Progress


class Outcome(StrEnum):
    """An outcome of a question or of a response. The value is its key in summary.json."""

    PAIR = "pairs"
    """A pair, not a question: a question can have several."""
    PROBE_FAILED = "left_out"
    NO_REWARD_DIFFERENCE = "all_equal"
    TRUNCATED = "cut_off"
    """Too few responses are complete."""
    TOO_FEW_RESPONSES = "too_few_responses"
    NOT_SCORED = "not_scored"
    """A response, not a question."""
    GIVEN_UP = "given_up"
    """A response, not a question: it could not become the best or the worst, so it has no reward."""
    GOLD_IN_EVERY_TEXT = "gold_in_every_text"
    UNFINISHED_THOUGHT = "unfinished_thoughts"
    """A reply, not a question: a thought without an answer."""
    ROUND_SAVED = "rounds_saved"
    """A round, not a question: its question ended early."""


_SHOWN = {
    Outcome.PROBE_FAILED: "probe failed",
    Outcome.NO_REWARD_DIFFERENCE: "no reward difference",
    Outcome.TRUNCATED: "truncated",
}


class Outcomes:
    """Counts the outcomes of a run and shows them in its progress.

    Args:
        progress: shows the counts.
        before: counts to begin with.
    """

    def __init__(self, progress: Progress, before: Mapping[Outcome, int] | None = None) -> None:
        self._progress = progress
        self._counts = Counter(before or {})

    def count(self, outcome: Outcome, number: int = 1) -> None:
        """Counts one or more of an outcome."""
        self._counts[outcome] += number
        if outcome is not Outcome.ROUND_SAVED:  # the progress shows questions and responses
            self._progress.count(_SHOWN.get(outcome, outcome.replace("_", " ")), number)

    def summary(self, *outcomes: Outcome) -> dict[str, int]:
        """The counts of some outcomes, by their keys in summary.json."""
        return {outcome.value: self._counts[outcome] for outcome in outcomes}
