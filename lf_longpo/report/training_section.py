"""The report's sections about a training on the run's pairs: loss, rewards, and scores before and after."""

import json
from pathlib import Path
from typing import Any

from lf_longpo.config import GenerateConfig
from lf_longpo.errors import UserError
from lf_longpo.evaluation.compare import compare
from lf_longpo.files.journal import read_rows
from lf_longpo.report.figures import Plot, curves
from lf_longpo.report.next_step import training_recipes
from lf_longpo.report.section import Section

# What the Hugging Face trainer and LLaMA-Factory write into a training's output_dir.
_STATE, _LOG = "trainer_state.json", "trainer_log.jsonl"


def training_sections(config: GenerateConfig, folder: Path | None) -> list[Section]:
    """The section about a training; none if there is no training.

    Args:
        config: of the run.
        folder: `output_dir` of the training. Default: that of a recipe in yaml/ that trains on the run's data set.

    Raises:
        UserError: the given folder holds no training.
    """
    if folder is not None:
        return [_section(folder, _steps(folder))]
    for recipe in training_recipes(Path()).values():
        found = Path(str(recipe.get("output_dir")))
        names = [name.strip() for name in str(recipe.get("dataset")).split(",")]
        if config.dataset_name in names and ((found / _STATE).is_file() or (found / _LOG).is_file()):
            return [_section(found, _steps(found))]
    return []


def score_section(before: Path, after: Path) -> Section:
    """The scores of two evaluations and their differences.

    Raises:
        UserError: as `compare`.
    """
    comparison = compare(before, after)
    section = Section("Scores before and after")
    section.columns = ["questions of", "metric", "questions", "before", "after", "difference", "95% interval"]
    for found in comparison.differences:
        mean, low, high = found.difference
        section.rows.append(
            [
                *(found.scope, found.metric, f"{found.questions:,}"),
                *(f"{of_side:.3f}" for of_side in found.means),
                *(f"{mean:+.3f}", f"{low:+.3f} to {high:+.3f}"),
            ]
        )
    section.notes.append(
        "An interval without 0 is a difference beyond chance. It is a paired bootstrap over questions."
    )
    return section


def _steps(folder: Path) -> list[dict[str, Any]]:
    """The logged steps of a training, each with `step` and its values."""
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        rows = state["log_history"]
    except FileNotFoundError:  # a training that goes on has only the log
        log = read_rows(folder / _LOG, ("current_steps",), lambda row: "")
        rows = [row | {"step": row["current_steps"]} for row in log]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / _STATE} is not the state of a trainer; name the output_dir of a training") from None
    if not (steps := [row for row in rows if isinstance(row.get("loss"), int | float)]):
        raise UserError(f"--training: {folder} holds no {_STATE} with a loss; name the output_dir of a training")
    return steps


def _section(folder: Path, steps: list[dict[str, Any]]) -> Section:
    section = Section("Training on these pairs")
    section.facts = {"training": str(folder), "steps": f"{steps[-1]['step']:,}"}

    def points(name: str) -> list[tuple[float, float]]:
        return [(row["step"], row[name]) for row in steps if isinstance(row.get(name), int | float)]

    loss = points("loss")
    word = "falls" if loss[-1][1] < loss[0][1] else "does not fall"
    caption = f"The loss {word}: {loss[0][1]:.3f} at the first and {loss[-1][1]:.3f} at the last logged step."
    section.plots.append(Plot(curves({"loss": loss}, "step", "loss"), caption))
    sides = {name: points(f"rewards/{name}") for name in ("chosen", "rejected")}
    if all(sides.values()):
        ends = {name: of_side[-1][1] for name, of_side in sides.items()}
        order = "above" if ends["chosen"] > ends["rejected"] else "not above"
        caption = (
            f"Implicit rewards (DPO, arXiv 2305.18290): at the last step, chosen responses are {order} rejected ones "
            f"({ends['chosen']:.3f} and {ends['rejected']:.3f})."
        )
        section.plots.append(Plot(curves(sides, "step", "reward"), caption))
    if accuracy := points("rewards/accuracies"):
        section.facts["accuracy of the rewards at the end"] = f"{accuracy[-1][1]:.0%}"
    return section
