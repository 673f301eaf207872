"""The figures of a report about rollouts, by value."""

import math

import pytest
from conftest import write_jsonl
from test_page import write_run

from lf_longpo.data.records import Rollout, names
from lf_longpo.longmab.rollout_files import ROLLOUTS
from lf_longpo.report.longmab_section import LongMabFigures
from lf_longpo.run_folder.contents import RunFolder


def rollout(id, round, reward, arms=(0,)):
    output = "**Answer**: x" if reward == 0.5 else "Answer: x"
    return {"id": id, "round": round, "arms": list(arms), "output": output, "reward": reward, "values": [0.0] * 3}


def figures_of(path, **changes):
    run = RunFolder(path)
    run.config = run.config.model_copy(update={"longmab": run.config.longmab.model_copy(update=changes)})
    figures = LongMabFigures(run)
    for row in run.rows(ROLLOUTS, tuple(names(Rollout))):
        figures.add(row)
    return figures


@pytest.fixture
def run(stub, tmp_path):
    """Two questions with all rounds, in another order than their ids, and one that is under way."""
    folder, _ = write_run(tmp_path, stub, longmab={"rounds": 3, "top_k": 2})
    rows = [rollout("b", number, reward, (0, 2)) for number, reward in enumerate((0.0, 0.5, 1.0))]
    rows += [rollout("a", number, 0.0, (1,)) for number in range(3)] + [rollout("c", 0, 1.0), rollout("a", 0, 1.0)]
    write_jsonl(folder / "rollouts.jsonl", rows)
    return folder


def test_rollouts_are_read_by_question_and_the_first_of_a_round_counts(run):
    rollouts = figures_of(run).rollouts()
    assert rollouts.rewards[:2].tolist() == [[0.0, 0.0, 0.0], [0.0, 0.5, 1.0]]
    assert rollouts.rewards[2, 0] == 1.0 and all(map(math.isnan, rollouts.rewards[2, 1:]))
    assert [counts.tolist() for counts in rollouts.choices] == [[0, 3, 0], [3, 0, 3], [1, 0, 0]]
    assert rollouts.unread == 1
    assert figures_of(run, rounds=1).rollouts().rewards.tolist() == [[0.0], [0.0], [1.0]]


@pytest.mark.slow
def test_a_question_gives_one_sign_and_the_line_shows_questions_with_all_rounds(run):
    first, learning, arms = figures_of(run).sections()
    assert first.rewards.differences == [0.0, 1.0]
    assert (first.rewards.first, first.rewards.last) == (0.0, 0.5)
    assert (first.rewards.lowest, first.rewards.best) == (4 / 7, 2 / 7)
    assert learning.plots[0].caption.endswith("The line shows the 2 questions with all rounds.")
    assert arms.facts["chunks chosen at least once"] == "44%"  # (1/3 + 2/3 + 1/3) / 3
    assert first.facts["mean reward"] == "0.357"  # 2.5 / 7
