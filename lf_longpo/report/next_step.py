"""The next command after a generation."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from lf_longpo.config import GenerateConfig
from lf_longpo.config.loading import read_settings
from lf_longpo.errors import UserError
from lf_longpo.files.run_dir import CONFIG
from lf_longpo.report.conclusions import State


def next_step(config: GenerateConfig, state: State, stage: str, data_set: str, failed: int) -> str:
    """The sentence with the next command.

    Args:
        config: the run's.
        state: of the run.
        stage: the last stage of a finished run.
        data_set: what became of the registered data set, as in summary.json.
        failed: the number of failed questions.
    """
    resume = f"longpo generate {config.output_dir / CONFIG}"
    if state == "running":
        return f"Next: if no process works on it, resume it with: {resume}"
    if state == "interrupted":
        return f"Next: resume it; finished work is kept: {resume}"
    if stage != "pairs":
        return f"Next: continue with the later stages: {resume}"
    if data_set == "written":
        return f"Next: longpo view {config.output_dir}, then longpo train {training_recipe(config)}"
    if data_set == "kept":
        return f"Next: the registered data set has pairs that this run has not recreated; run it again: {resume}"
    if failed:
        return f"Next: fix the cause of the failures, then try them again: {resume}"
    return "Next: change the settings or the questions, set another output_dir and run longpo generate again."


def training_recipe(config: GenerateConfig) -> str:
    """A recipe in yaml/ that trains on this data set, or else one with its template, and the overrides it needs."""
    wanted = {
        "dataset": config.dataset_name,
        "dataset_dir": str(config.dataset_dir),
        "template": config.pairs.template,
        "cutoff_len": config.pairs.cutoff_len,
    }
    recipes = training_recipes(Path())
    for key in ("dataset", "template"):
        for path, recipe in recipes.items():
            if recipe.get(key) == wanted[key]:
                changes = (f"{name}={value}" for name, value in wanted.items() if recipe.get(name) != value)
                return " ".join([str(path), *changes])
    return " ".join(["RECIPE.yaml", *(f"{name}={value}" for name, value in wanted.items())])


def training_recipes(folder: Path) -> dict[Path, dict[str, Any]]:
    """The settings of the DPO recipes in the folder's yaml/, by path."""
    recipes: dict[Path, dict[str, Any]] = {}
    for path in sorted((folder / "yaml").glob("*_dpo.yaml")):
        with suppress(UserError):  # a file that is not a recipe
            recipes[path] = read_settings(path)
    return recipes
