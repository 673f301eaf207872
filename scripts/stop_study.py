"""What would `longmab.stop` or fewer rounds have saved? Replays finished LongMab-PO runs, without a call.

    python scripts/stop_study.py runs/llama3_longmab
    python scripts/stop_study.py runs/seed42 runs/seed43 runs/seed44       # means over the runs

Prints calls, pairs and mean reward difference as Markdown, for each `stop` and each limit of `rounds`. The rows are
exact for the chunk selection of the run: a round depends on the rounds before it only. For runs that were made with
`stop`, the rows are those with the same or a smaller one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from lf_longpo.config import LongMabGenerateConfig
from lf_longpo.data.questions import read_questions
from lf_longpo.data.records import Question, Rollout, names, record_of
from lf_longpo.files.journal import read_rows
from lf_longpo.longmab.rollout_files import ROLLOUTS
from lf_longpo.longmab.rounds import Rounds
from lf_longpo.run_folder.contents import RunFolder

_STOPS = (None, 1.0, 0.5, 0.25)
Finished = tuple[Question, dict[int, Rollout]]


def finished_of(run: RunFolder) -> list[Finished]:
    """The questions with rollouts, each with its rollouts by round."""
    found: dict[str, dict[int, Rollout]] = {}
    for row in read_rows(run.path / ROLLOUTS, names(Rollout)):
        found.setdefault(row["id"], {}).setdefault(row["round"], record_of(Rollout, row))
    return [(question, found[question.id]) for question in read_questions(run.questions) if question.id in found]


def replay(
    config: LongMabGenerateConfig, finished: Sequence[Finished], stop: float | None, rounds: int
) -> tuple[int, list[float]]:
    """Rollouts that these settings need, and the reward difference of each pair that they give."""
    config = config.model_copy(update={"longmab": config.longmab.model_copy(update={"stop": stop, "rounds": rounds})})
    made, gaps = 0, []
    for question, rollouts in finished:
        replayed = Rounds(question, config).replay(rollouts)
        made += len(replayed.rollouts)
        gaps += [chosen.reward - rejected.reward for chosen, rejected in replayed.pairs()]
    return made, gaps


def main() -> None:
    """Prints a row for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs with the same settings")
    runs = [RunFolder(path) for path in parser.parse_args().runs]
    for run in runs:
        if not isinstance(run.config, LongMabGenerateConfig):
            parser.error(f"{run.path} is not a LongMab-PO run")
    least = min((stop for run in runs if (stop := run.config.longmab.stop) is not None), default=None)
    stops = [stop for stop in _STOPS if least is None or (stop is not None and stop <= least)]
    most = min(run.config.longmab.rounds for run in runs)
    known = [(run.config, finished_of(run), (run.summary() or {})["questions"]) for run in runs]

    def means(stop: float | None, rounds: int) -> tuple[float, float, float]:
        rows = [(probes, *replay(config, finished, stop, rounds)) for config, finished, probes in known]
        gaps = [gap for _, _, found in rows for gap in found]
        return (
            fmean(probes + made for probes, made, _ in rows),
            len(gaps) / len(rows),
            fmean(gaps) if gaps else 0.0,
        )

    whole = means(stops[0], most)
    print("| `stop` | `rounds` | calls | of all | pairs | mean reward difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for stop in stops:
        for rounds in (most, most * 5 // 6, most * 2 // 3, most // 2, most // 3):
            calls, pairs, gap = means(stop, rounds)
            row = (stop or "none", rounds, f"{calls:.0f}", f"{calls / whole[0]:.0%}", f"{pairs:.1f}", f"{gap:.3f}")
            print("|", " | ".join(map(str, row)), "|")


if __name__ == "__main__":
    main()
