"""What is printed when a run has ended: what came out, where it lies and what to do next."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lf_longpo.config import GenerateConfig


def _console() -> Console:
    """Writes to stdout; wide enough for whole tables where that is a file or a pipe."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


def print_generation(config: GenerateConfig, summary: dict[str, Any]) -> None:
    """The end of `longpo generate`."""
    console = _console()
    table = Table(title=escape(f"LongMab-PO: {config.dataset_name}"), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # paths stay whole
    counts = f"{summary['pairs']} pairs from {summary['questions']} questions"
    table.add_row(
        "pairs",
        f"{counts} ({summary['left_out']} left out by their probe, {summary['all_equal']} with all rewards equal, "
        f"{summary['failed']} failed)",
    )
    table.add_row("roll-outs", str(summary["rollouts"]))
    if summary["rollouts"]:
        first, last = summary["mean_reward_first_third"], summary["mean_reward_last_third"]
        table.add_row(
            "reward", f"mean {summary['mean_reward']:.3f} (first third of the rounds {first:.3f}, last {last:.3f})"
        )
        bins = ("0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1")
        histogram = zip(bins, summary["reward_histogram"], strict=True)
        table.add_row("rewards", ", ".join(f"{label}: {number}" for label, number in histogram))
        table.add_row(
            "arms", f"{summary['mean_arms']:.1f} chunks a question, {summary['mean_arms_tried']:.1f} of them tried"
        )
    for stage, totals in summary["calls"].items():
        tokens = f"{totals['prompt_tokens']:,} prompt + {totals['completion_tokens']:,} new tokens"
        table.add_row(f"{stage} calls", f"{totals['calls']:,}: {tokens}")
    table.add_row("time", f"{summary['seconds']:.0f} s")
    table.add_row("run", escape(str(config.output_dir)))
    if summary["failed"]:
        table.add_row("failures", escape(str(config.output_dir / "failures.jsonl")))
    if summary["pairs"]:
        table.add_row("data set", escape(str(config.dataset_dir / f"{config.dataset_name}.jsonl")))
    console.print(table)
    if summary["pairs"]:
        console.print(f"Next: llamafactory-cli train {_recipe_of(config)}", markup=False)
    else:
        console.print("No pairs: nothing was registered.")


def _recipe_of(config: GenerateConfig) -> str:
    """The recipe of yaml/ that trains on this data set, or one for its template, with what it has to be told."""
    wanted = {
        "dataset": config.dataset_name,
        "dataset_dir": str(config.dataset_dir),
        "template": config.pairs.template,
        "cutoff_len": config.pairs.cutoff_len,
    }
    files = sorted(Path("yaml").glob("*_dpo.yaml"))
    recipes = {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}
    for key in ("dataset", "template"):
        for path, recipe in recipes.items():
            if recipe.get(key) == wanted[key]:
                changes = (f"{name}={value}" for name, value in wanted.items() if recipe.get(name) != value)
                return " ".join([str(path), *changes])
    return " ".join(["RECIPE.yaml", *(f"{name}={value}" for name, value in wanted.items())])


def print_longqa(results: Sequence[dict[str, Any]], output_dir: Path) -> None:
    """The end of `longpo evaluate longqa`: one row an evaluation, scores in percent."""
    console = _console()
    table = Table(title="Long-context QA, percent", title_justify="left")
    for column in ("model", "adapter", "questions", "EM", "F1", "SubEM", "SubEM in output", "answered"):
        table.add_column(column, justify="left" if column in ("model", "adapter") else "right")
    for row in results:
        scores = (row["em"], row["f1"], row["sub_em"], row["sub_em_output"], row["answered"])
        shown = ("-" if score is None else f"{100 * score:.1f}" for score in scores)
        table.add_row(escape(row["model"]), escape(row["adapter"] or "-"), str(row["questions"]), *shown)
    console.print(table)
    console.print(f"Predictions and results: {output_dir}", markup=False)
