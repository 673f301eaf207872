"""A run against a server that fails in every way, killed every few seconds, must make the data set of a quiet one.

python tests/soak.py --questions 700 --rounds 30 --kill-every 15      # over 20,000 calls
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml
from aiohttp import web
from conftest import code_questions, run_settings, write_jsonl
from prepared import Prepared
from stub import KEY, MODEL, Stub

JOURNALS = ("probes.jsonl", "rollouts.jsonl", "pairs.jsonl")


class FaultyStub(Stub):
    """Answers a share of all calls in some wrong way; refuses a few questions and cuts a few answers whenever asked."""

    def __init__(self, share: float) -> None:
        super().__init__(delay=0.01)
        self.faults: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self._share = share
        self._draw = random.Random(7)

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompt = body["messages"][0]["content"]
        if self._draw.random() < self._share:
            kind = self._draw.choice(sorted(_FAULTS))
            self.faults[kind] += 1
            return await _FAULTS[kind](request)
        if "code of place3?" in prompt:
            return _reply({"role": "assistant", "content": None, "refusal": "I would rather not."}, "stop")
        if body["seed"] % 50 == 0:
            response = _reply({"role": "assistant", "content": "Reasoning: the text"}, "length")
        else:
            response = await super()._chat(request)
        self.answered[f"{body['seed']} {prompt}"] += 1
        return response


def _reply(message: dict, reason: str) -> web.Response:
    choices = [{"index": 0, "message": message, "finish_reason": reason}]
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    reply = {"id": "c", "object": "chat.completion", "created": 0, "model": MODEL, "choices": choices, "usage": usage}
    return web.json_response(reply)


async def _hangs(request: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def _drops(request: web.Request) -> web.Response:
    request.transport.abort()
    return web.Response()


def _answers(**response):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(**response)

    return answer


def _says(**reply):
    async def say(request: web.Request) -> web.Response:
        return web.json_response({"id": "c", "object": "chat.completion", "created": 0, "model": MODEL, **reply})

    return say


_FAULTS = {
    "busy": _answers(status=429, headers={"Retry-After": "0.2"}, text='{"error": {"message": "slow down"}}'),
    "drops": _drops,
    "empty": _says(choices=[]),
    "error": _answers(status=500, text="out of order"),
    "full": _answers(status=503, text="no room"),
    "half": _answers(text='{"id": "c", "choices": [{"index": 0, "mess', content_type="application/json"),
    "hangs": _hangs,
    "html": _answers(text="<html><body>Bad gateway</body></html>", content_type="text/html"),
    "nothing": _says(choices=[{"index": 0, "message": {"role": "assistant"}, "finish_reason": "stop"}]),
}


def settings(stub: Stub, folder: Path, questions: Path, rounds: int, timeout: float) -> Path:
    """Writes the configuration of a run into `folder`."""
    data = run_settings(stub, folder, questions)
    data["longmab"] |= {"rounds": rounds, "init": "random"}
    data["policy"] |= {"max_concurrency": 64, "max_retries": 12, "timeout": timeout}
    data["max_failure_rate"] = 0.2
    del data["embedder"]
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def start(config: Path) -> Prepared:
    """One start of the run."""
    environment = os.environ | {"STUB_KEY": KEY}
    command = [sys.executable, "-m", "lf_longpo", "generate", str(config)]
    return Prepared(command, config.parent, environment)


def soak(folder: Path, questions: int, rounds: int, kill_every: float, share: float = 0.3) -> dict[str, object]:
    """Runs both and compares them.

    Returns:
        What happened, for people.

    Raises:
        AssertionError: something was lost, made twice, or written down that must not be.
    """
    draw = random.Random(1)
    rows = write_jsonl(folder / "q.jsonl", code_questions(questions))
    quiet, rough = folder / "quiet", folder / "rough"
    for one in (quiet, rough):
        one.mkdir()
    with FaultyStub(0.0) as stub:
        run = start(settings(stub, quiet, rows, rounds, timeout=60.0))
        assert run.wait(3600) == 0, run.stderr.read()
        needed = dict(stub.answered)
    assert set(needed.values()) == {1}

    kills = owed = 0
    with FaultyStub(share) as stub:
        config = settings(stub, rough, rows, rounds, timeout=2.0)
        while True:
            run = start(config)
            before = sum(stub.answered.values())
            try:
                # The clock runs from its first answers on, so that every start gets somewhere.
                while run.poll() is None and sum(stub.answered.values()) < before + 20:
                    time.sleep(0.02)
                assert run.wait(draw.uniform(0.5, 1.5) * kill_every) == 0, run.stderr.read()[-3000:]
                break
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.wait()
                kills += 1
                time.sleep(0.1)
            with sqlite3.connect(rough / "run/calls.sqlite") as db:
                kept = db.execute("SELECT COUNT(*) FROM calls WHERE request NOT LIKE '%/lost/%'").fetchone()[0]
            owed += len(stub.answered) - kept
            _damage(rough / "run", draw)
        answered, calls, faults = dict(stub.answered), stub.chats, dict(stub.faults)

    assert set(answered) == set(needed)
    repeated = sum(answered.values()) - len(answered)
    # Only answers that were on their way to the client when it was killed are asked for again.
    assert repeated <= owed <= kills * 64, (repeated, owed, kills)
    for name in ("data/codes.jsonl", "run/pairs.jsonl"):
        assert (rough / name).read_bytes() == (quiet / name).read_bytes() != b""
    _every_question_ended(rough / "run", questions, rounds)
    for path in folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), f"the key is in {path}"
    return {
        "calls answered": len(answered), "faults": faults, "kills": kills, "answered twice": repeated,
        "pairs": len((rough / "data/codes.jsonl").read_text().splitlines()), "calls seen by the plain stub": calls,
    }  # fmt: skip


def _damage(run: Path, draw: random.Random) -> None:
    """What a kill or another program may leave: a torn last line, and a line that stands there twice."""
    for name in JOURNALS:
        if (run / name).is_file() and (lines := (run / name).read_bytes().splitlines(keepends=True)):
            with (run / name).open("ab") as file:
                if lines[-1].endswith(b"\n"):
                    file.write(draw.choice(lines[:-1] or lines))
                    file.write(lines[0][: len(lines[0]) // 2])


def _every_question_ended(run: Path, questions: int, rounds: int) -> None:
    probes = {row["id"]: row["kept"] for row in map(json.loads, (run / "probes.jsonl").read_text().splitlines())}
    failed = {row["id"]: row["reason"] for row in map(json.loads, (run / "failures.jsonl").read_text().splitlines())}
    rolled: dict[str, set[int]] = {}
    for row in map(json.loads, (run / "rollouts.jsonl").read_text().splitlines()):
        rolled.setdefault(row["id"], set()).add(row["round"])
    for number in range(questions):
        id = f"q{number}"
        if id in failed:
            assert "refused" in failed[id], failed[id]
        else:
            assert not probes[id] or rolled[id] == set(range(rounds)), id
    assert failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=700)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--kill-every", type=float, default=15.0, help="seconds, more or less (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(soak(Path(name), options.questions, options.rounds, options.kill_every))
