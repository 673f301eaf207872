"""What the scores of a LongReward run tell, by dimension."""

from collections.abc import Collection
from statistics import fmean, pstdev

from lf_longpo.longreward.parsing import BEST_RATING
from lf_longpo.longreward.response_files import SCORES, Keys, Response
from lf_longpo.longreward.scorer import DIMENSIONS
from lf_longpo.report.figures import Plot, histogram
from lf_longpo.report.section import Section
from lf_longpo.run_folder.contents import RunFolder

_FIELDS = ("idx", "query", "answer", "scores")
_MEANING = {
    "helpfulness": "Does the response do what was asked?",
    "logicality": "Do its parts agree with each other?",
    "faithfulness": "Is what it states in the document?",
    "completeness": "Does it have all that the document says to the question?",
}


def longreward_sections(run: RunFolder) -> list[Section]:
    """Rewards, and what they are made of."""
    usable = Keys(()).of_score
    rows = (row for row in run.rows(SCORES, _FIELDS, "idx") if usable(row) is not None)
    # Nothing else is kept of a row, whose details are long.
    scored = {row["idx"]: tuple(row["scores"][name] for name in DIMENSIONS) for row in rows}
    scores = dict(zip(DIMENSIONS, map(list, zip(*scored.values(), strict=True)), strict=False))
    section = Section("Scores")
    section.facts["responses scored"] = f"{len(scored):,}"
    if not scored:
        section.notes.append("No response is scored yet.")
        return [section]
    rewards = [fmean(its) for its in scored.values()]
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
    keys, found = Keys({id for id, _ in wanted}), {}
    for row in run.rows(SCORES, _FIELDS, "idx"):
        if (id := keys.of_score(row)) is not None and (key := (id, Response.of(row).number)) in wanted:
            told = " · ".join(f"{name} {row['scores'][name]:.1f}" for name in DIMENSIONS)
            found[key] = f"sample {key[1]} · {told}"
    return found
