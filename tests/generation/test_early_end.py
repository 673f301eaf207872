"""Questions that end early (`longmab.stop`): calls, pairs, later starts, status, report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, code_questions, run_settings, write_jsonl
from stub import Stub

from lf_longpo.config import GenerateConfig
from lf_longpo.generation.generate import estimate, generate
from lf_longpo.run_folder.status import status_of

pytestmark = pytest.mark.slow  # whole runs, with LLaMA-Factory's encoding
QUESTIONS, ROUNDS = 6, 10


def config_of(stub, folder, pairs=None, **longmab) -> GenerateConfig:
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(QUESTIONS)))
    data["longmab"] |= {"rounds": ROUNDS, **longmab}
    data["pairs"] |= pairs or {}
    return GenerateConfig.model_validate(data)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rounds_of(folder: Path) -> dict[str, dict[int, dict]]:
    found = {}
    for row in rows_of(folder / "run/rollouts.jsonl"):
        found.setdefault(row["id"], {})[row["round"]] = row
    return found


@pytest.mark.parametrize("selection", ["ucb", "random"])
async def test_the_same_pairs_for_fewer_calls(key, tmp_path, selection):
    made, results = {}, {}
    for name, stop in (("all", None), ("early", 1.0)):
        with Stub() as stub:
            config = config_of(stub, tmp_path / name, selection=selection, stop=stop)
            results[name] = (await generate(config)).summary
            made[name] = rounds_of(tmp_path / name)
            assert stub.chats == QUESTIONS + sum(map(len, made[name].values()))
    script = [sys.executable, str(REPOSITORY / "scripts/stop_study.py"), str(tmp_path / "all/run")]
    study = subprocess.run(
        script, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}
    )
    early, whole = results["early"], results["all"]
    assert f"| 1.0 | {ROUNDS} | {QUESTIONS + early['rollouts']} |" in study.stdout
    assert (early["pairs"], whole["rounds_saved"]) == (whole["pairs"], 0)
    assert early["rounds_saved"] == QUESTIONS * ROUNDS - early["rollouts"] > ROUNDS
    assert early["mean_reward_first_third"] is early["mean_reward_last_third"] is None
    for id, rounds in made["early"].items():  # the rounds that were made are those of the other run
        assert rounds == {round: made["all"][id][round] for round in range(len(rounds))}
        rewards = [row["reward"] for row in rounds.values()]
        full = [max(rewards[: i + 1]) - min(rewards[: i + 1]) == 1.0 for i in range(len(rewards))]
        assert not any(full[:-1]) and (full[-1] or len(rewards) == ROUNDS)
    status = status_of(tmp_path / "early/run")
    counts = {count.stage: (count.done, count.total) for count in status.stages}
    assert (status.state, counts["rollout"]) == ("ended", (early["rollouts"], early["rollouts"]))
    assert "does not show whether the bandit learns" in (tmp_path / "early/run/report.html").read_text()


async def test_a_later_start_ends_after_the_same_rounds_and_needs_no_server(key, tmp_path):
    with Stub() as stub:
        config = config_of(stub, tmp_path, stop=1.0)
        first = (await generate(config)).summary
    pairs = (tmp_path / "data/codes.jsonl").read_bytes()
    (tmp_path / "run/pairs.jsonl").unlink()
    again = (await generate(config)).summary  # the server is gone
    assert (tmp_path / "data/codes.jsonl").read_bytes() == pairs
    assert (again["rollouts"], again["rounds_saved"]) == (first["rollouts"], first["rounds_saved"])
    assert json.loads((tmp_path / "run/progress.json").read_text())["total"] == 0


def half_right(prompt, seed):
    if "Correct answer: " in prompt:
        return f"The answer is {prompt.partition('Correct answer: ')[2].split()[0]}."
    place = prompt.rsplit("code of place", 1)[1].partition("?")[0]
    return f"{f'Thought {seed % 97}. ' * (seed % 13)}Answer: {f'word{int(place) * 8}' if seed % 2 else 'none'}"


async def test_more_pairs_of_a_question_take_the_rounds_that_they_need(key, tmp_path):
    with Stub(half_right) as stub:
        first = (await generate(config_of(stub, tmp_path, stop=1.0))).summary
        more = (await generate(config_of(stub, tmp_path, {"per_question": 2}, stop=1.0))).summary
        assert first["rollouts"] < more["rollouts"] < QUESTIONS * ROUNDS
        calls = stub.chats
        assert calls == QUESTIONS + more["rollouts"] and more["pairs"] > first["pairs"]
        fewer = (await generate(config_of(stub, tmp_path, stop=1.0))).summary
        assert stub.chats == calls and fewer["rounds_saved"] == first["rounds_saved"]


async def test_the_estimate_expects_fewer_rounds(key, tmp_path):
    with Stub() as stub:
        calls = {}
        for preset in ("paper", "lean"):
            rows = estimate(config_of(stub, tmp_path, preset=preset))
            calls[preset] = {row.stage: row.usage.calls for row in rows}
    assert calls["paper"]["rollout"] == QUESTIONS * ROUNDS == 2 * calls["lean"]["rollout"]


async def test_an_interrupted_start_counts_the_questions_that_ended_early(key, tmp_path):
    with Stub() as stub:
        first = (await generate(config_of(stub, tmp_path, stop=1.0))).summary
        questions = code_questions(2 * QUESTIONS)
        config = config_of(stub, tmp_path, stop=1.0).model_dump() | {"max_cost": 1e-9}
        write_jsonl(tmp_path / "q.jsonl", [*questions[QUESTIONS:], *questions[:QUESTIONS]])
        config["policy"]["price"] = {"prompt": 1.0, "completion": 1.0}
        config["embedder"]["price"] = {"prompt": 0.0}
        calls = stub.chats
        stopped = (await generate(GenerateConfig.model_validate(config))).summary
        assert stub.chats == calls and first["rollouts"] < QUESTIONS * ROUNDS
    assert (stopped["unfinished"], stopped["failed"], stopped["pairs"]) == (QUESTIONS, 0, first["pairs"])
