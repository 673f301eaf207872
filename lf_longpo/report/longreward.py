"""What the scores of a LongReward run tell, by dimension."""

from collections.abc import Collection
from statistics import fmean, pstdev

from lf_longpo.longreward.files import SCORES, Response
from lf_longpo.longreward.parsing import BEST_RATING
from lf_longpo.longreward.scorer import DIMENSIONS
from lf_longpo.report.figures import Plot, histogram
from lf_longpo.report.run_folder import RunFolder
from lf_longpo.report.section import Section

_MEANING = {
    "helpfulness": "Does the response do what was asked?",
    "logicality": "Do its parts agree with each other?",
    "faithfulness": "Is what it states in the document?",
    "completeness": "Does it have all that the document says to the question?",
}


def longreward_sections(run: RunFolder) -> list[Section]:
    """Rewards, and what they are made of."""
    scored = {row["idx"]: row for row in run.rows(SCORES, ("idx", "scores"), "idx")}
    scores = {name: [row["scores"][name] for row in scored.values()] for name in DIMENSIONS}
    section = Section("Scores")
    section.facts["responses scored"] = f"{len(scored):,}"
    if not scored:
        section.notes.append("No response is scored yet.")
        return [section]
    rewards = [fmean(row["scores"][name] for name in DIMENSIONS) for row in scored.values()]
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
            f"Nearly all responses have the same {' and '.join(flat)}: it does not tell them apart."
        )
    return [section]


def longreward_sides(run: RunFolder, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """The scores of each of the wanted responses, by question and number."""
    found = {}
    for row in run.rows(SCORES, ("idx", "query", "answer", "scores"), "idx"):
        key = row["idx"].rpartition("-")[0], Response.of(row).number
        if key in wanted:
            found[key] = " · ".join(f"{name} {row['scores'][name]:.1f}" for name in DIMENSIONS)
    return found
