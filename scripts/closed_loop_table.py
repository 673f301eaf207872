"""The tables of scripts/closed_loop.sh, in Markdown: the pairs by method, and held-out scores before and after.

python scripts/closed_loop_table.py runs/closed_loop
"""

import json
import sys
from pathlib import Path
from typing import Any

from lf_longpo.evaluation.compare import compare
from lf_longpo.evaluation.intervals import Interval, interval_of_mean
from lf_longpo.evaluation.results import load_results

WAYS = {"bandit": "LongMab-PO: bandit", "random": "random chunks", "whole": "whole context", "longreward": "LongReward"}
METRICS = {"f1": "F1", "sub_em": "SubEM", "sub_em_output": "SubEM in output", "answered": "answered"}


def percent(mean: float, low: float, high: float, sign: str = "") -> str:
    """A share and its interval, in percent."""
    return f"{100 * mean:{sign}.1f} ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


def main(folder: Path) -> None:
    """Prints both tables."""
    ways = {way: folder / way for way in WAYS if (folder / way / "run/summary.json").is_file()}
    print("| pairs by | questions | skipped | calls | mean reward | pairs | making them | training |")
    print("|" + " --- |" * 8)
    for way, folder_of_way in ways.items():
        run = json.loads((folder_of_way / "run/summary.json").read_text())
        calls = sum(stage["calls"] for stage in run["calls"].values())
        # The time of the first start; a start that resumes takes seconds.
        took = [folder_of_way / f"{step}_seconds" for step in ("generation", "training")]
        cells = (
            *(WAYS[way], run["questions"], run.get("left_out", "-"), calls),
            "-" if run.get("mean_reward") is None or "rollouts" not in run else f"{run['mean_reward']:.3f}",
            run["pairs"],
            *(f"{path.read_text().strip()} s" if path.is_file() else "-" for path in took),
        )
        print(f"| {' | '.join(map(str, cells))} |")

    untrained = folder / "untrained/evaluation"
    trained = {way: folder_of_way / "evaluation" for way, folder_of_way in ways.items()}
    trained = {way: evaluation for way, evaluation in trained.items() if (evaluation / "results.json").is_file()}
    print(f"\n| trained on | (F1 + SubEM) / 2 | times | {' | '.join(METRICS.values())} |")
    print(f"| --- | --- | --- | {' | '.join('---' for _ in METRICS)} |")
    base = mean_of_both(load_results(untrained, "table")).mean
    for name, evaluation in {"nothing": untrained, **{WAYS[way]: trained[way] for way in trained}}.items():
        results = load_results(evaluation, "table")
        both = mean_of_both(results)
        cells = (percent(results[metric], *results["intervals"][metric]) for metric in METRICS)
        print(f"| {name} | {percent(*both)} | {both.mean / base if base else float('nan'):.1f} | {' | '.join(cells)} |")

    print(f"\n| trained on, minus untrained | {' | '.join(METRICS.values())} |")
    print(f"| --- | {' | '.join('---' for _ in METRICS)} |")
    for way, evaluation in trained.items():
        compared = compare(untrained, evaluation).differences
        found = {difference.metric: difference.difference for difference in compared}
        print(f"| {WAYS[way]} | {' | '.join(percent(*found[metric], sign='+') for metric in METRICS)} |")


def mean_of_both(results: dict[str, Any]) -> Interval:
    """The mean of F1 and SubEM of the extracted answer, over all questions."""
    (scores,) = results["by_question"].values()
    return interval_of_mean([(score["f1"] + score["sub_em"]) / 2 for score in scores.values()])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
