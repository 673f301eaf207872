"""The report's section about the scores of a LongReward run, by dimension."""

from collections.abc import Collection
from statistics import fmean, pstdev

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
    usable = Keys(()).of_score
    rows = (row for row in run.rows(SCORES, _FIELDS, "idx") if usable(row) is not None)
    # Only the scores are kept in memory: the details of a row are long.
    scored = {row["idx"]: tuple(row["scores"][name] for name in DIMENSIONS) for row in rows}
    scores = dict(zip(DIMENSIONS, map(list, zip(*scored.values(), strict=True)), strict=False))
    section = Section("Scores")
    section.facts["responses scored"] = f"{len(scored):,}"
    if not scored:
        section.notes.append("There are no scored responses yet.")
        return [section]
    rewards = [fmean(of_response) for of_response in scored.values()]
    section.rewards = Rewards(
        sum(reward == 0 for reward in rewards) / len(rewards),
        sum(reward == BEST_RATING for reward in rewards) / len(rewards),
    )
    section.columns = ["", "mean", "standard deviation", "lowest", "highest"]
    for name, values in {"reward": rewards, **scores}.items():
        numbers = fmean(values), pstdev(values), min(values), max(values)
        section.rows.append([name, *(f"{number:.2f}" for number in numbers)])
    span = (0.0, BEST_RATING)
    caption = "The reward of a response is the mean of its four scores, each from 0 to 10."
    section.plots.append(Plot(histogram({"responses": rewards}, "reward", "responses", span), caption))
    for name, values in scores.items():
        section.plots.append(Plot(histogram({"responses": values}, name, "responses", span), _MEANING[name]))
    flat = [name for name, values in scores.items() if pstdev(values) < 0.2 and len(values) > 1]
    if flat:
        section.warnings.append(
            f"Nearly all responses have the same {' and '.join(flat)} score, so it does not separate good from bad."
        )
    return [section]


def score_notes(run: RunFolder, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """A note about each wanted response, by question and number: its scores."""
    keys, found = Keys({id for id, _ in wanted}), {}
    for row in run.rows(SCORES, _FIELDS, "idx"):
        if (id := keys.of_score(row)) is not None and (key := (id, Response.of(row).number)) in wanted:
            listed = " · ".join(f"{name} {row['scores'][name]:.1f}" for name in DIMENSIONS)
            found[key] = f"sample {key[1]} · {listed}"
    return found
