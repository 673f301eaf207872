"""The report's section about the scores of a LongReward run, by dimension."""

from array import array

import numpy as np

from lf_longpo.files.journal import Row
from lf_longpo.longreward.parsing import BEST_RATING
from lf_longpo.longreward.response_files import NOT_SCORED
from lf_longpo.longreward.scorer import DIMENSIONS
from lf_longpo.report.figures import Plot, histogram
from lf_longpo.report.section import Rewards, Section

_MEANING = {
    "helpfulness": "Does the response do what the question asks?",
    "logicality": "Do the parts of the response agree with each other?",
    "faithfulness": "Are the statements of the response in the document?",
    "completeness": "Does the response have everything that the document says about the question?",
}


class LongRewardFigures:
    """Collects the scores of a run's responses. Makes the section about the rewards and the four dimensions.

    If a response was scored twice, the last scores count.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._scores = array("d")
        self._given_up: set[str] = set()

    def add(self, row: Row) -> None:
        """Takes a scored response, or one that racing gave up."""
        if NOT_SCORED in row:
            self._given_up.add(row["idx"])
            return
        number = self._numbers.setdefault(row["idx"], len(self._numbers))
        of_response = array("d", (row["scores"][name] for name in DIMENSIONS))
        self._scores[number * len(DIMENSIONS) : (number + 1) * len(DIMENSIONS)] = of_response

    def sections(self) -> list[Section]:
        """The section."""
        scores = np.array(self._scores).reshape(-1, len(DIMENSIONS))
        section = Section("Scores")
        section.facts["responses scored"] = f"{len(scores):,}"
        if given_up := len(self._given_up - self._numbers.keys()):
            section.notes.append(
                f"Racing gave up {given_up:,} of {len(scores) + given_up:,} responses: they cannot become the best or "
                "the worst, so they have no reward. The numbers below are those of the other responses."
            )
        if not len(scores):
            section.notes.append("There are no scored responses yet.")
            return [section]
        rewards = scores.mean(axis=1)
        section.rewards = Rewards(float(np.mean(rewards == 0)), float(np.mean(rewards == BEST_RATING)))
        section.columns = ["", "mean", "standard deviation", "lowest", "highest"]
        columns = dict(zip(DIMENSIONS, scores.T, strict=True))
        for name, values in {"reward": rewards, **columns}.items():
            numbers = values.mean(), values.std(), values.min(), values.max()
            section.rows.append([name, *(f"{number:.2f}" for number in numbers)])
        span = (0.0, BEST_RATING)
        caption = "The reward of a response is the mean of its four scores, each from 0 to 10."
        section.plots.append(Plot(histogram({"responses": rewards}, "reward", "responses", span), caption))
        for name, values in columns.items():
            section.plots.append(Plot(histogram({"responses": values}, name, "responses", span), _MEANING[name]))
        flat = [name for name, values in columns.items() if values.std() < 0.2 and len(values) > 1]
        if flat:
            section.warnings.append(
                f"Nearly all responses have the same {' and '.join(flat)} score, so it does not separate good from bad."
            )
        return [section]
