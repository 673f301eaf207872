"""Runs through a Batch API: the same data as without, nothing paid twice, whatever dies."""

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter

import pytest
import yaml
from aiohttp import web
from batch_stub import BatchStub
from conftest import code_questions, judged, run_settings, write_jsonl
from prepared import Prepared
from pydantic import ValidationError
from stub import KEY

from lf_longpo.config import ChatConfig, GenerateConfig, LongMabGenerateConfig
from lf_longpo.errors import UserError
from lf_longpo.generation.generate import generate
from lf_longpo.models import batch_chat, batches

QUESTIONS, SAMPLES = 3, 5
PACE = {
    "batch_chat._QUIET": 0.5,
    "batches._FIRST_LOOK": 0.05,
    "batches._LONGEST_LOOK": 0.1,
    "batches._SETTLING": 0.2,
    "batches._PATIENCE": 20.0,
}


@pytest.fixture
def quick(monkeypatch, key):
    for name, seconds in PACE.items():
        monkeypatch.setattr(f"lf_longpo.models.{name}", seconds)


def settings(stub, folder, batch=True):
    folder.mkdir(exist_ok=True)
    stub.answer = judged
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(QUESTIONS)))
    del data["longmab"]
    data["policy"] |= {"batch": batch, "max_retries": 4, "price": {"prompt": 1.0, "completion": 2.0}}
    if batch:
        del data["policy"]["max_concurrency"]
    return data | {
        "method": "longreward",
        "judge": data["policy"],
        "longreward": {"num_samples": SAMPLES, "chunk_size": 256, "evidence_chunk_size": 64},
    }


def configured(*args):
    return GenerateConfig.model_validate(settings(*args))


def data_set(folder):
    return (folder / "data/codes.jsonl").read_bytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The data set and the summary without batches."""
    folder = tmp_path_factory.mktemp("direct")
    with pytest.MonkeyPatch.context() as patch, BatchStub() as stub:
        patch.setenv("STUB_KEY", KEY)
        result = asyncio.run(generate(configured(stub, folder, False)))
        assert result.exit_code == 0 and not stub.batches
        return data_set(folder), result.summary


@pytest.mark.slow
async def test_batches_give_what_calls_give(quick, tmp_path, expected):
    with BatchStub() as stub:
        result = await generate(configured(stub, tmp_path))
        assert data_set(tmp_path) == expected[0]
        for stage, totals in expected[1]["calls"].items():
            assert result.summary["calls"][stage] == pytest.approx(totals)
        assert not stub.chats and set(stub.paid.values()) == {1}
        # Samples and extractions, verdicts and statements, support; a loaded machine may tear them.
        assert len(stub.batches) <= 10
        assert stub.looks < 20 * len(stub.batches)


@pytest.mark.slow
async def test_a_provider_like_zhipu_and_a_judge_of_its_own(quick, tmp_path, expected, monkeypatch):
    """Null counts, milliseconds, raw line separators in texts, several files of requests, two models on one store."""
    monkeypatch.setattr(batch_chat, "_MOST_REQUESTS", 7)
    with BatchStub() as stub:
        stub.zhipu = True
        stub.spoil = lambda rows: ([json.dumps(row, ensure_ascii=False) for row in rows], "completed")
        data = settings(stub, tmp_path)
        stub.answer = lambda prompt, seed: judged(prompt, seed).replace("So.", "So.\u2028\u0085And:")
        data["judge"] = data["judge"] | {"timeout": 61.0}
        result = await generate(GenerateConfig.model_validate(data))
        assert data_set(tmp_path) == expected[0] and result.summary["failed"] == 0
        assert set(stub.paid.values()) == {1} and len(stub.batches) > 12


@pytest.mark.slow
async def test_downloads_that_are_none_cost_nothing(quick, tmp_path, expected):
    """A web page, nothing at all, and half of the lines, again and again."""
    looks = Counter()

    def refuse(path):
        if not path.endswith("content"):
            return None
        looks[path] += 1
        text = {1: "<html>", 2: "<html>", 3: "", 4: "<html>", 5: ""}.get(looks[path])
        if text is None and looks[path] == 6:
            whole = stub.files[path.split("/")[-2]]
            text = whole[: whole.rindex("\n") + 1] if "\n" in whole else ""
        return None if text is None else web.Response(text=text)

    with BatchStub() as stub:
        stub.refuse = refuse
        await generate(configured(stub, tmp_path))
        assert data_set(tmp_path) == expected[0] and set(stub.paid.values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "complaint"),
    [("/v1/files", "has no Batch API"), ("/v1/batches", "creates no batch"), ("content", "no longer has the replies")],
)
async def test_what_is_not_found_is_told_and_can_be_mended(quick, tmp_path, expected, path, complaint):
    with BatchStub() as stub:
        config = configured(stub, tmp_path)
        missing = {"error": {"message": "not here"}}
        stub.refuse = lambda asked: web.json_response(missing, status=404) if asked.endswith(path) else None
        with pytest.raises(UserError, match=complaint):
            await generate(config)
        stub.refuse = lambda asked: None
        await generate(config)
        assert data_set(tmp_path) == expected[0] and set(stub.paid.values()) == {1}


async def test_a_provider_that_takes_no_files_ends_the_run(quick, tmp_path):
    with BatchStub() as stub:
        stub.refuse = lambda path: web.json_response({"error": {"message": "quota"}}, status=400)
        with pytest.raises(UserError, match=r"answered 400: .*quota"):
            await generate(configured(stub, tmp_path))
        assert not stub.batches


@pytest.mark.slow
async def test_a_cancelled_batch_ends_the_run_and_what_it_left_goes_in_again(quick, tmp_path, expected):
    with BatchStub() as stub:
        config = configured(stub, tmp_path)
        stub.spoil = lambda rows: (list(map(json.dumps, rows[::2])), "cancelled")
        with pytest.raises(UserError, match="batch_0 was cancelled"):
            await generate(config)
        batches_then = list(stub.batches.values())
        stub.spoil = lambda rows: (list(map(json.dumps, rows)), "completed")
        await generate(config)
        assert data_set(tmp_path) == expected[0]
        left = sum(len(stub.files[batch["input_file_id"]].splitlines()) // 2 for batch in batches_then)
        assert sum(times > 1 for times in stub.paid.values()) == left


@pytest.mark.slow
async def test_credit_that_is_topped_up_lets_the_run_go_on(quick, tmp_path, expected):
    def broke(rows):
        error = {"status_code": 429, "body": {"error": {"code": "insufficient_quota"}}}
        return [json.dumps(row | {"response": error}) for row in rows], "completed"

    with BatchStub() as stub:
        config = configured(stub, tmp_path)
        stub.spoil = broke
        with pytest.raises(UserError, match="no credit left"):
            await generate(config)
        stub.spoil = lambda rows: (list(map(json.dumps, rows)), "completed")
        await generate(config)
        assert data_set(tmp_path) == expected[0]


@pytest.mark.slow
async def test_a_queue_that_stays_full_ends_the_run(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_PATIENCE", 0.5)

    def on_create(batch):
        fault = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
        batch |= {"status": "failed", "errors": {"object": "list", "data": [fault]}}

    with BatchStub() as stub:
        stub.on_create = on_create
        with pytest.raises(UserError, match="Enqueued token limit reached; lower max_concurrency"):
            await generate(configured(stub, tmp_path))
        assert 1 < len(stub.batches) < 20 and not stub.paid


@pytest.mark.slow
async def test_faults_cost_what_the_provider_charges_and_no_more(quick, tmp_path, expected):
    draw, spoiled = random.Random(7), set()

    def spoil(rows):
        lines = []
        for row in rows:
            fault = draw.randrange(12)
            if fault < 6 and row["custom_id"] not in spoiled:
                spoiled.add(row["custom_id"])
                broken = {
                    0: {"custom_id": row["custom_id"], "response": None, "error": {"code": "batch_expired"}},
                    1: row | {"response": {"status_code": 500, "body": {"error": {"message": "oops"}}}},
                    2: row | {"response": {"status_code": 200, "body": {"choices": []}}},
                    3: row | {"response": "?"},
                }.get(fault)
                if fault == 4:
                    lines.append(json.dumps(row)[:40])  # a torn line
                elif broken:
                    lines.append(json.dumps(broken))
                continue  # else no line at all
            lines.append(json.dumps(row))
        return lines, "expired" if draw.random() < 0.3 else "completed"

    def refuse(path):
        answer = {
            0: lambda: web.json_response({"error": {"message": "busy"}}, status=503),
            1: lambda: web.json_response({"error": {"message": "busy"}}, status=429),
            2: lambda: web.Response(text="<html>"),
            3: lambda: web.json_response({"code": 500, "msg": "busy"}),
            4: lambda: web.json_response({"error": {"message": "busy", "code": 503}}),
        }.get(draw.randrange(10))
        return answer and answer()

    def on_create(batch):
        if len(stub.batches) == 1:  # the queue is full
            fault = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [fault]}}
        return web.Response(status=502) if len(stub.batches) == 2 else None  # its answer is lost

    with BatchStub() as stub:
        stub.spoil, stub.refuse, stub.on_create, stub.break_off = spoil, refuse, on_create, 3
        result = await generate(configured(stub, tmp_path))
        assert result.summary["failed"] == result.summary["not_scored"] == 0
        assert data_set(tmp_path) == expected[0]
        assert len(spoiled) > 20
        assert {id for id, times in stub.paid.items() if times > 1} == spoiled
        assert max(stub.paid.values()) == 2


def start(config):
    """The command in a process of its own, with short waits."""
    changes = "; ".join(f"{name} = {seconds}" for name, seconds in PACE.items())
    code = "import sys, lf_longpo.cli; from lf_longpo.models import batch_chat, batches; "
    code += f"{changes}; sys.exit(lf_longpo.cli.main())"
    command = [sys.executable, "-c", code, "generate", str(config)]
    return Prepared(command, config.parent)


def wait_until(run, there):
    for _ in range(12_000):
        if there():
            return
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)
    pytest.fail("two minutes")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["creation", "waiting"])
def test_a_killed_run_collects_what_was_handed_in(key, tmp_path, expected, moment):
    with BatchStub(seconds=1.0) as stub:
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(stub, tmp_path)))
        run = start(tmp_path / "c.yaml")
        if moment == "creation":  # before the client knows of it
            stub.on_create = lambda batch: run.kill()
        else:
            wait_until(run, lambda: len(stub.batches) >= 2)
            time.sleep(0.3)
            run.kill()
        assert run.wait(60) == -signal.SIGKILL
        stub.on_create = lambda batch: None
        run = start(tmp_path / "c.yaml")
        assert run.wait(60) == 0, run.stderr.read()
        assert set(stub.paid.values()) == {1}
    assert data_set(tmp_path) == expected[0]


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_a_batch(key, tmp_path, expected):
    with BatchStub(seconds=1000.0) as stub:
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings(stub, tmp_path)))
        run = start(tmp_path / "c.yaml")
        wait_until(run, lambda: stub.looks)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130
        assert "run the same command again to resume" in run.stderr.read()
        for batch in stub.batches.values():
            batch["ready"] = 0.0
        stub.seconds = 0.1
        run = start(tmp_path / "c.yaml")
        assert run.wait(60) == 0, run.stderr.read()
        assert set(stub.paid.values()) == {1}
    assert data_set(tmp_path) == expected[0]


@pytest.mark.slow
async def test_a_batch_that_is_refused_ends_the_run_with_its_words(quick, tmp_path, expected):
    def on_create(batch):
        fault = {"code": "invalid_json_line", "line": 2, "message": "no such model"}
        batch |= {"status": "failed", "errors": {"object": "list", "data": [fault]}}

    with BatchStub() as stub:
        config = configured(stub, tmp_path)
        stub.on_create = on_create
        with pytest.raises(UserError, match=r"refused the batch batch_0: line 2: no such model"):
            await generate(config)
        stub.on_create = lambda batch: None
        await generate(config)
        assert data_set(tmp_path) == expected[0] and set(stub.paid.values()) == {1}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"backend": "transformers"}, "batch needs one server"),
        ({"provider": "anthropic"}, "batch needs one server"),
        ({"base_url": ["http://a/v1", "http://b/v1"]}, "batch needs one server"),
        ({"requests_per_minute": 3}, "requests_per_minute cannot be used with batch"),
        ({"max_concurrency": "auto"}, "auto cannot be used with batch"),
        ({"max_concurrency": 64}, "64 limits batches to so few requests; remove it or set 1000"),
        ({"batch": "true"}, "valid boolean"),
    ],
)
def test_batches_of_what_has_none_are_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        ChatConfig(**{"model": "m", "batch": True} | changes)


def test_rollouts_are_no_batches():
    with pytest.raises(ValidationError, match="each rollout waits for the one before"):
        LongMabGenerateConfig(
            method="longmab", input="q", output_dir="o", dataset_name="d", policy={"model": "m", "batch": True},
            pairs={"template": "t"},
        )  # fmt: skip
