"""The report's section about the scores of a LongReward run, by dimension."""

from array import array
from collections.abc import Collection

import numpy as np

from lf_longpo.longreward.parsing import BEST_RATING
from lf_longpo.longreward.response_files import SCORES, Keys, Response
from lf_longpo.longreward.scorer import DIMENSIONS
from lf_longpo.report.figures import Plot, histogram
from lf_longpo.report.section import Rewards, Section
from lf_longpo.run_folder.contents import RunFolder

_FIELDS = ("idx", "query", "answer", "scores")
_MEANING = {
    "helpfulness": "Does the response do what the question asks?",
    "logicality": "Do the parts of the response agree with each other?",
    "faithfulness": "Are the statements of the response in the document?",
    "completeness": "Does the response have everything that the document says about the question?",
}


def longreward_sections(run: RunFolder) -> list[Section]:
    """The section about the rewards and the scores of the four dimensions."""
    scores, given_up = _read_scores(run)
    section = Section("Scores")
    section.facts["responses scored"] = f"{len(scores):,}"
    if given_up:
        section.notes.append(
            f"Racing gave up {given_up:,} of {len(scores) + given_up:,} responses: they cannot become the best or the "
            "worst, so they have no reward. The numbers below are those of the other responses."
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


def _read_scores(run: RunFolder) -> tuple[np.ndarray, int]:
    """The scores of all responses, and how many responses were given up.

    If a response was scored twice, the last scores count.

    Returns:
        The scores [responses, dimensions]; the number of responses with a row but without a reward.
    """
    keys, numbers, scores, given_up = Keys(()), dict[str, int](), array("d"), set[str]()
    for row in run.rows(SCORES, _FIELDS, "idx"):
        if keys.of_score(row) is None:
            if keys.of_judged(row) is not None:
                given_up.add(row["idx"])
            continue
        of_response = array("d", (row["scores"][name] for name in DIMENSIONS))
        number = numbers.setdefault(row["idx"], len(numbers))
        scores[number * len(DIMENSIONS) : (number + 1) * len(DIMENSIONS)] = of_response
    return np.array(scores).reshape(-1, len(DIMENSIONS)), len(given_up - numbers.keys())


def score_notes(run: RunFolder, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """A note about each wanted response, by question and number: its scores."""
    ids = {id for id, _ in wanted}
    keys, found = Keys(ids), {}
    for row in run.rows(SCORES, _FIELDS, "idx"):
        id = keys.of_score(row)
        if id is not None and id in ids and (key := (id, Response.of(row).number)) in wanted:
            listed = " · ".join(f"{name} {row['scores'][name]:.1f}" for name in DIMENSIONS)
            found[key] = f"sample {key[1]} · {listed}"
    return found
