"""What becomes of the registered data set when a run ends early, or ends without a pair."""

import json
import os
import signal

import pytest
from aiohttp import web
from conftest import write_jsonl
from test_generate import rows, settings

from lf_longpo.cli import main
from lf_longpo.cli.generation_output import print_generation
from lf_longpo.config import GenerateConfig
from lf_longpo.generation.generate import generate

QUESTIONS = 12


def part(stub, tmp_path, start, end, **changes) -> GenerateConfig:
    from conftest import code_questions

    config = settings(stub, tmp_path, rows=code_questions(QUESTIONS), **changes)
    policy = config.policy.model_copy(update={"max_concurrency": 1})
    return config.model_copy(update={"start": start, "end": end, "policy": policy})


def interrupt_at(stub, number):
    """Ctrl-C when the server has seen so many more calls."""
    at = stub.chats + number
    stub.on_chat = lambda seen: os.kill(os.getpid(), signal.SIGINT) if seen == at else None


@pytest.mark.slow
async def test_an_interrupted_longer_run_keeps_the_registered_pairs(stub, tmp_path):
    await generate(part(stub, tmp_path, 6, 12))
    before = rows(tmp_path / "data/codes.jsonl")
    assert len(before) > 1
    interrupt_at(stub, 18)  # a question has seven
    result = await generate(part(stub, tmp_path, 0, 12))
    # Of the six new ones, those not begun, too; the six of the first run are finished.
    assert result.exit_code == 130 and 3 <= result.summary["unfinished"] <= 5
    after = rows(tmp_path / "data/codes.jsonl")
    assert after == rows(tmp_path / "run/pairs.jsonl")
    assert len(after) > len(before) and after[-len(before) :] == before
    assert result.summary["pairs"] == len(after) and result.summary["data_set"] == "written"


def interrupted_at_once(stub, tmp_path, **changes):
    """Another start of the run of the first three questions, which now come last. Ctrl-C comes with its first call."""
    signals = iter([signal.SIGINT])  # one: a second one would stop the run, or come after it
    stub.on_chat = lambda seen: [os.kill(os.getpid(), number) for number in signals]
    config = part(stub, tmp_path, 0, 12, **changes)
    text = (tmp_path / "questions.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "questions.jsonl").write_text("".join([*text[3:], *text[:3]]))
    return config


@pytest.mark.slow
async def test_a_recreation_that_is_interrupted_leaves_the_registered_pairs(stub, tmp_path, capsys):
    """Pairs for two cutoff lengths never stand in one data set, and none is lost."""
    await generate(part(stub, tmp_path, 0, 3))
    before = rows(tmp_path / "data/codes.jsonl")
    # The last round is missing, as after a kill, so that no question is finished.
    journal = tmp_path / "run/rollouts.jsonl"
    write_jsonl(journal, [row for row in rows(journal) if row["round"] < 5])
    other = interrupted_at_once(stub, tmp_path, pairs={"cutoff_len": 300})
    result = await generate(other)
    assert result.summary["data_set"] == "kept"
    assert rows(tmp_path / "data/codes.jsonl") == before
    print_generation(other, result.summary, "longpo generate c.yaml")
    assert "was not changed" in " ".join(capsys.readouterr().out.split())
    stub.on_chat = lambda seen: None
    result = await generate(other)
    assert result.summary["data_set"] == "written"
    ids = [row["id"] for row in rows(tmp_path / "data/codes.jsonl")]
    assert ids[-len(before) :] == [row["id"] for row in before] and len(ids) > len(before)


@pytest.mark.slow
async def test_an_interrupted_run_recreates_the_pairs_of_finished_questions(stub, tmp_path):
    await generate(part(stub, tmp_path, 0, 3))
    before = rows(tmp_path / "data/codes.jsonl")
    result = await generate(interrupted_at_once(stub, tmp_path, pairs={"cutoff_len": 300}))
    assert result.exit_code == 130 and result.summary["data_set"] == "written"
    after = rows(tmp_path / "data/codes.jsonl")
    assert [row["id"] for row in after] == [row["id"] for row in before]
    assert all(len(new["prompt"]) < len(old["prompt"]) for new, old in zip(after, before, strict=True))


@pytest.mark.slow
async def test_pairs_that_no_setting_allows_any_more_are_not_registered(stub, tmp_path, capsys):
    await generate(part(stub, tmp_path, 0, 6))
    made = stub.chats
    registered = rows(tmp_path / "data/codes.jsonl")
    short = part(stub, tmp_path, 0, 6, pairs={"cutoff_len": 12})
    result = await generate(short)
    assert result.exit_code == 1 and stub.chats == made
    assert (result.summary["pairs"], result.summary["unfit"]) == (0, len(registered))
    assert not (tmp_path / "data/codes.jsonl").exists() and rows(tmp_path / "run/pairs.jsonl") == []
    assert json.loads((tmp_path / "data/dataset_info.json").read_text()) == {}
    print_generation(short, result.summary, "longpo generate c.yaml")
    assert "out of date and was removed" in " ".join(capsys.readouterr().out.split())
    result = await generate(part(stub, tmp_path, 0, 6))
    assert rows(tmp_path / "data/codes.jsonl") == registered and stub.chats == made


@pytest.mark.slow
async def test_a_run_whose_calls_fail_does_not_remove_another_runs_data_set(stub, tmp_path):
    await generate(part(stub, tmp_path, 0, 6))
    before = (tmp_path / "data/codes.jsonl").read_bytes()
    stub.fail = lambda body: web.Response(text="<html>", content_type="text/html")
    other = part(stub, tmp_path, 0, 2, policy={"max_retries": 0})
    result = await generate(other.model_copy(update={"output_dir": tmp_path / "other"}))
    assert result.summary["failed"] == 2 and result.summary["data_set"] == "kept"
    assert (tmp_path / "data/codes.jsonl").read_bytes() == before


@pytest.mark.slow
def test_the_data_set_of_a_stopped_stage_stays(stub, tmp_path):
    config = part(stub, tmp_path, 0, 2)
    (tmp_path / "c.yaml").write_text(config.model_dump_json(exclude_defaults=True))
    assert main(["generate", str(tmp_path / "c.yaml")]) == 0
    before = (tmp_path / "data/codes.jsonl").read_bytes()
    assert main(["generate", str(tmp_path / "c.yaml"), "--stage", "rollout"]) == 0
    assert (tmp_path / "data/codes.jsonl").read_bytes() == before
