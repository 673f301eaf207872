"""`longpo status`: runs that go on, were killed, have ended, are of an earlier version or on Ray."""

import json
import shutil
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from conftest import code_questions, run_settings, write_jsonl
from test_session import evaluation, instruction, scoring

from lf_longpo.cli import main
from lf_longpo.config import GenerateConfig
from lf_longpo.engine import progress_file
from lf_longpo.errors import UserError
from lf_longpo.files.run_dir import is_locked, locked
from lf_longpo.generation.generate import generate
from lf_longpo.run_folder.status import runs_below, status_of

QUESTIONS, ROUNDS = 12, 6


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(progress_file, "SECONDS_BETWEEN_WRITES", 0.01)


def configured(stub, folder, **policy):
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(QUESTIONS)))
    data["policy"] |= {"price": {"prompt": 1.0, "completion": 2.0}} | policy
    return GenerateConfig.model_validate(data)


async def run_and_look(stub, folder, at=30):
    """Runs a generation to its end; its status at a call, and a copy of its folder from then: what a kill leaves."""
    seen = []

    def look(number):
        if number == at:
            seen.append(status_of(folder / "run"))
            shutil.copytree(folder / "run", folder / "killed", ignore=shutil.ignore_patterns(".*"))

    stub.on_chat = look
    result = await generate(configured(stub, folder))
    return seen[0], result.summary


@pytest.mark.slow
async def test_a_run_while_it_goes_on_after_a_kill_and_at_its_end(stub, tmp_path):
    running, summary = await run_and_look(stub, tmp_path)
    assert (running.command, running.method, running.state) == ("longpo generate", "longmab", "running")
    assert running.questions == QUESTIONS and running.process["host"] == socket.gethostname()
    assert 0 < running.stages[0].done <= running.stages[0].total == QUESTIONS

    killed = status_of(tmp_path / "killed")
    assert killed.state == "stopped" and killed.seconds_left > 0 and killed.new_tokens_per_second > 0
    assert 0 < killed.cost < summary["cost"]
    rows = [len((tmp_path / "killed" / name).read_text().splitlines()) for name in ("probes.jsonl", "rollouts.jsonl")]
    assert [count.done for count in killed.stages] == rows
    assert killed.steps > 0 and killed.steps_left > 0

    ended = status_of(tmp_path / "run")
    assert (ended.state, ended.stage, ended.seconds_left, ended.steps_left) == ("ended", "pairs", 0.0, 0)
    assert (ended.done, ended.failed, ended.pairs) == (QUESTIONS, 0, summary["pairs"])
    assert ended.stages[1].done == ended.stages[1].total == ROUNDS * (QUESTIONS - summary["left_out"])
    assert ended.calls == summary["calls"] and ended.cost == summary["cost"]
    assert not (tmp_path / "run/.progress.json").exists()


@pytest.mark.slow
async def test_a_run_of_a_version_without_progress(stub, tmp_path):
    _, summary = await run_and_look(stub, tmp_path)
    (tmp_path / "run/progress.json").unlink()
    ended = status_of(tmp_path / "run")
    assert (ended.state, ended.done, ended.cost) == ("ended", QUESTIONS, summary["cost"])
    (tmp_path / "run/summary.json").unlink()
    stopped = status_of(tmp_path / "run")
    assert (stopped.state, stopped.questions, stopped.pairs) == ("stopped", None, summary["pairs"])
    assert stopped.cost == pytest.approx(summary["cost"])
    assert stopped.calls == {stage: pytest.approx(calls) for stage, calls in summary["calls"].items()}


@pytest.mark.slow
async def test_a_start_without_calls_keeps_the_measured_speed(stub, tmp_path):
    await generate(configured(stub, tmp_path))
    speed = progress_file.read_progress(tmp_path / "run")["speed"]
    (tmp_path / "run/summary.json").unlink()
    await generate(configured(stub, tmp_path))
    again = progress_file.read_progress(tmp_path / "run")
    assert again["new_tokens"] == 0 and again["speed"] == speed and speed["new_tokens_per_second"] > 0


@pytest.mark.slow
async def test_shards_of_a_run_on_ray_add_up(stub, tmp_path):
    _, summary = await run_and_look(stub, tmp_path)
    shards = tmp_path / "ray/shards"
    shutil.copytree(tmp_path / "run", shards / "00000000-00000012")
    shutil.copytree(tmp_path / "killed", shards / "00000012-00000024")
    (shards / "shards.json").write_text(json.dumps({"edges": [0, 12, 24, 36]}))
    shutil.copy(tmp_path / "run/config.yaml", tmp_path / "ray/config.yaml")
    status, killed = status_of(tmp_path / "ray"), status_of(tmp_path / "killed")
    assert status.shards == {"total": 3, "ended": 1, "running": 0} and status.state == "stopped"
    assert (status.questions, status.done) == (36, 12 + killed.done)
    assert status.cost == pytest.approx(summary["cost"] + killed.cost)
    assert status.steps_left == killed.steps_left + 12 * (1 + ROUNDS)  # of the shard that has not started
    assert status.calls["probe"]["calls"] == summary["calls"]["probe"]["calls"] + killed.calls["probe"]["calls"]
    with locked(shards / "00000012-00000024"):
        running = status_of(tmp_path / "ray")
    assert running.state == "running" and running.shards["running"] == 1
    assert running.seconds_left > killed.seconds_left
    assert runs_below(tmp_path / "ray") == [tmp_path / "ray"]


@pytest.mark.parametrize("command", [scoring, evaluation, instruction])
def test_other_kinds_of_runs(stub, tmp_path, command, capsys):
    words, data, _ = command(stub, tmp_path)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(data))
    assert main([*words, str(tmp_path / "c.yaml")]) == 0
    capsys.readouterr()
    assert main(["status", str(tmp_path / "run"), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["command"] == " ".join(["longpo", *words[: 1 if command is scoring else 2]])
    assert (status["state"], status["failed"], status["done"]) == ("ended", 0, status["questions"])
    assert all(count["done"] == count["total"] for count in status["stages"])
    assert status["calls"] and status["last_activity"]


@pytest.mark.slow
async def test_the_most_frequent_failure_counts_reasons_that_differ_in_numbers(stub, tmp_path):
    await generate(configured(stub, tmp_path))
    rows = [("a", "no credit"), ("b", "HTTP 500 after 3 tries"), ("c", "HTTP 502 after 4 tries")]
    write_jsonl(tmp_path / "run/failures.jsonl", [{"id": id, "reason": reason} for id, reason in rows])
    failure = status_of(tmp_path / "run").failure
    assert (failure.times, failure.reason) == (2, "HTTP 500 after 3 tries")


@pytest.mark.slow
async def test_a_process_on_another_machine_works_as_long_as_it_writes(stub, tmp_path):
    await run_and_look(stub, tmp_path)
    path = tmp_path / "killed/progress.json"
    progress = json.loads(path.read_text()) | {"host": "another"}
    for seconds, state in ((5, "running"), (500, "stopped")):
        updated = datetime.now(UTC) - timedelta(seconds=seconds)
        path.write_text(json.dumps(progress | {"updated": updated.isoformat()}))
        assert status_of(tmp_path / "killed").state == state


def test_a_status_refuses_no_run_its_lock(tmp_path):
    ended = threading.Event()

    def look():
        while not ended.is_set():
            is_locked(tmp_path)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            with locked(tmp_path):
                assert is_locked(tmp_path)
    finally:
        ended.set()
        thread.join()
    assert not is_locked(tmp_path)


@pytest.mark.slow
async def test_all_runs_of_a_folder(stub, tmp_path, capsys):
    await generate(configured(stub, tmp_path))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/config.yaml").write_text("a: 1\n")
    assert main(["status", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "generate longmab" in printed and "ended" in printed and "12 of 12" in printed
    assert "odd/config.yaml is not a config of a run" in printed.replace("\n", " ")
    assert main(["status", str(tmp_path), "--json"]) == 0
    assert [row["state"] for row in json.loads(capsys.readouterr().out)["runs"]] == ["ended"]
    assert main(["status", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "12 of 12, 0 failed" in printed and "rollout calls" in printed and "last activity" in printed


@pytest.mark.parametrize(("name", "message"), [("none", "there is no folder"), ("empty", "no run in")])
def test_folders_without_runs(tmp_path, capsys, name, message):
    (tmp_path / "empty").mkdir()
    assert main(["status", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        status_of(tmp_path)


@pytest.mark.slow
async def test_a_status_loads_no_library_of_models(stub, tmp_path):
    await generate(configured(stub, tmp_path))
    code = (
        "import sys; from lf_longpo.cli import main; main(['status', sys.argv[1]]);"
        "sys.exit(bool({'torch', 'transformers', 'ray'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "run"], check=True, capture_output=True)
