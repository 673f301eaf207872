"""A run that is killed at random points and started again makes the same data set and repeats no finished call."""

import json
import os
import random
import re
import signal
import sqlite3
import sys

import pytest
import yaml
from conftest import code_questions, judged, run_settings, write_jsonl
from prepared import Prepared
from stub import MODEL, Stub

from lf_longpo.cli import main

QUESTIONS, ROUNDS = 10, 8


def longmab_settings(stub, folder):
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(QUESTIONS)))
    data["longmab"]["rounds"] = ROUNDS
    return data


def lean_settings(stub, folder):
    data = longmab_settings(stub, folder)
    data["longmab"] |= {"preset": "lean", "rounds": 12}
    return data


def longreward_settings(stub, folder):
    stub.answer = judged
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(3)))
    del data["longmab"]
    return data | {
        "method": "longreward",
        "judge": data["policy"],
        "longreward": {"num_samples": 5, "chunk_size": 256, "evidence_chunk_size": 64},
    }


def start(config, largest_file=None, command=("generate",)):
    """The command in a process of its own, whose disk is as good as full where a file would grow larger than that."""
    command = [sys.executable, "-m", "lf_longpo", *command, str(config)]
    if largest_file:
        limit = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({largest_file}, {largest_file}))"
        command[1:3] = ["-c", f"{limit}; import sys; from lf_longpo.cli import main; sys.exit(main())"]
    return Prepared(command, config.parent)


def write_config(stub, folder, settings=longmab_settings):
    folder.mkdir()
    (folder / "c.yaml").write_text(yaml.safe_dump(settings(stub, folder)))
    return folder / "c.yaml"


def finished_calls(folder):
    with sqlite3.connect(folder / "run/calls.sqlite") as db:
        return db.execute("SELECT COUNT(*) FROM calls WHERE stage != 'embed'").fetchone()[0]


def racing_settings(stub, folder):
    data = longreward_settings(stub, folder)
    return data | {"longreward": data["longreward"] | {"racing": True, "racing_error": 0.3, "num_samples": 7}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "journal", "rows"),
    [
        (longreward_settings, "scored_responses.jsonl", lambda calls: 3 * 5),
        (racing_settings, "scored_responses.jsonl", lambda calls: 3 * 7),
        (lean_settings, "rollouts.jsonl", lambda calls: calls - QUESTIONS),
    ],
    ids=["longreward", "longreward with racing", "longmab that ends early"],
)
def test_three_kills_change_nothing(tmp_path, key, settings, journal, rows):
    """test_soak.py does it to LongMab with all rounds."""
    with Stub() as stub:
        # What is not to be killed needs no process of its own.
        assert main(["generate", str(write_config(stub, tmp_path / "whole", settings))]) == 0
        calls_needed = len(stub.requests)
        assert stub.chats == calls_needed > 30

    draw = random.Random(20)
    kill_at = sorted(draw.sample(range(3, calls_needed - 5), 3))
    repeats_allowed = 0
    with Stub(delay=0.05) as stub:
        config = write_config(stub, tmp_path / "killed", settings)
        for calls in kill_at:
            run = start(config)
            # From the server's thread, so that the kill falls wherever the client happens to be.
            stub.on_chat = lambda _, calls=calls, run=run: (
                os.kill(run.pid, signal.SIGKILL) if len(stub.requests) >= calls else None
            )
            assert run.wait(180) == -signal.SIGKILL, run.stderr.read()
            # Only calls may be repeated that the server saw and that had no reply in the client's cache yet.
            repeats_allowed += len(stub.requests) - finished_calls(tmp_path / "killed")
        stub.on_chat = lambda _: None
        assert main(["generate", str(config)]) == 0
        assert len(stub.requests) == calls_needed
        assert stub.chats - calls_needed <= repeats_allowed <= 3 * 8  # four calls at once, of policy and judge

    for name in ("data/codes.jsonl", "run/pairs.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert (tmp_path / "killed/data/codes.jsonl").read_bytes()
    for folder in ("whole", "killed"):  # no journal holds a step twice
        lines = (tmp_path / folder / "run" / journal).read_text().splitlines()
        assert len(lines) == len(set(lines)) == rows(calls_needed)
        assert any("cannot be best or worst" in line for line in lines) == (settings is racing_settings)


def judged_answer(prompt, seed):
    """Answers that differ, and a judge who is not always to be understood."""
    if "double brackets" not in prompt:
        return f"It is {len(prompt) % 7}."
    return "Hard to say." if seed % 5 == 0 else f"So be it. [[{1 + seed % 3}]]"


@pytest.mark.slow
def test_a_killed_evaluation_resumes(tmp_path, key):
    rows = [
        {
            "_id": str(n),
            "dataset": "musique",
            "input": f"How many? {'?' * n}",
            "context": f"Text {n}.",
            "answers": ["a", "b"],
        }
        for n in range(20)
    ]
    calls = {}
    for name, kill_at in (("whole", ()), ("killed", (9, 40))):
        folder = tmp_path / name
        folder.mkdir()
        with Stub(judged_answer, delay=0.02) as stub:
            model = {"model": MODEL, "base_url": stub.base_url, "api_key_env": "STUB_KEY", "max_concurrency": 4}
            settings = {
                "input": str(write_jsonl(folder / "musique.jsonl", rows)),
                "output_dir": str(folder / "eval"),
                "model": model | {"price": {"prompt": 1.0}},
                "judge": model | {"price": {"prompt": 5.0, "completion": 1.0}},
                "tokenizer": "smollm2-135m",
            }
            (folder / "c.yaml").write_text(yaml.safe_dump(settings))
            for number in kill_at:
                run = start(folder / "c.yaml", command=("evaluate", "longbench"))
                stub.on_chat = lambda _, number=number, run=run: (
                    os.kill(run.pid, signal.SIGKILL) if len(stub.requests) >= number else None
                )
                assert run.wait(120) == -signal.SIGKILL, run.stderr.read()
            stub.on_chat = lambda _: None
            assert main(["evaluate", "longbench", str(folder / "c.yaml")]) == 0
            calls[name] = len(stub.requests)
            assert stub.chats - len(stub.requests) <= len(kill_at) * 8  # those whose answers were on their way
    whole, killed = (json.loads((tmp_path / name / "eval/results.json").read_text()) for name in ("whole", "killed"))
    assert calls["whole"] == calls["killed"] == sum(stage["calls"] for stage in killed["calls"].values())
    assert whole["cost"] == pytest.approx(killed["cost"]) and whole["cost"] > 0
    differing = ("input", "seconds", "cost")
    assert whole | dict.fromkeys(differing) == killed | dict.fromkeys(differing)
    assert whole["questions"] == 20


def asked_and_answered(prompt, seed):
    """A question about the number in the document, and its answer."""
    if "Reply with the question" in prompt:
        return f"Question {seed % 100}: how many drops were counted on that day?"
    return f"There were {re.search(r'were ([0-9]+) drops', prompt)[1]}."


@pytest.mark.slow
def test_a_killed_self_instruction_resumes(tmp_path, key):
    made, calls = {}, {}
    for name, kill_at in (("whole", ()), ("killed", (19,))):
        folder = tmp_path / name
        rows = [
            {"id": f"d{n}", "text": f"Day {n}. There were {n} drops. {f'It rained {n} times. ' * 50}"}
            for n in range(20)
        ]
        with Stub(asked_and_answered, delay=0.02) as stub:
            settings = {
                "input": str(write_jsonl(folder / "documents.jsonl", rows)),
                "output_dir": str(folder / "run"),
                "dataset_dir": str(folder / "data"),
                "dataset_name": "drops",
                "model": {
                    "model": MODEL, "base_url": stub.base_url, "api_key_env": "STUB_KEY", "max_concurrency": 4,
                    "price": {"prompt": 1.0},
                },
                "tokenizer": "smollm2-135m",
                "min_tokens": 10,
                "near_duplicate": None,
            }  # fmt: skip
            (folder / "c.yaml").write_text(yaml.safe_dump(settings))
            command = ("synthesize", "self-instruct")
            for number in kill_at:
                run = start(folder / "c.yaml", command=command)
                stub.on_chat = lambda _, number=number, run=run: (
                    os.kill(run.pid, signal.SIGKILL) if len(stub.requests) >= number else None
                )
                assert run.wait(120) == -signal.SIGKILL, run.stderr.read()
            stub.on_chat = lambda _: None
            assert main([*command, str(folder / "c.yaml")]) == 0
            made[name] = (folder / "data/drops.jsonl").read_text().replace(name, "")
            calls[name] = len(stub.requests)
            assert stub.chats - len(stub.requests) <= len(kill_at) * 4  # those whose answers were on their way
            summary = json.loads((folder / "run/summary.json").read_text())
            assert sum(stage["calls"] for stage in summary["calls"].values()) == len(stub.requests)
    assert made["whole"] == made["killed"] and len(made["whole"].splitlines()) == 20
    assert calls["whole"] == calls["killed"] == 40


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(tmp_path, key, capsys):
    with Stub(delay=2.0) as stub:
        config = write_config(stub, tmp_path / "busy")
        first = start(config)
        while not stub.chats:
            assert first.poll() is None, first.stderr.read()
        assert main(["generate", str(config)]) == 2
        assert "another run is working in" in capsys.readouterr().err
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 130
        assert "run the same command again to resume" in first.stderr.read()


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_costs_nothing(tmp_path, key):
    with Stub() as stub:
        config = write_config(stub, tmp_path / "full")
        run = start(config, largest_file=45_000)
        assert run.wait(120) == 2
        told = run.stderr.read()
        assert "Traceback" not in told and told.splitlines()[-1].startswith("error:"), told
        asked = stub.chats
        assert asked
        kept = finished_calls(tmp_path / "full")
        assert asked - kept <= 2 * 4  # those under way, and those that had the turns of the ones that were lost
        assert main(["generate", str(config)]) == 0
        assert stub.chats - len(stub.requests) <= asked - kept
        whole = stub.chats
    with Stub() as stub:
        assert main(["generate", str(write_config(stub, tmp_path / "whole"))]) == 0 and stub.chats <= whole
    assert (tmp_path / "full/data/codes.jsonl").read_bytes() == (tmp_path / "whole/data/codes.jsonl").read_bytes()
