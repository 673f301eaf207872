"""Where and when calls are made: turns, paces, quotas, several servers, and interrupted runs."""

import asyncio
import itertools
import json
import signal
import sqlite3
import time

import pytest
import yaml
from aiohttp import web
from conftest import code_questions, run_settings, write_jsonl
from stub import Stub
from test_kill import start

from lf_longpo.config import ChatConfig, GenerateConfig
from lf_longpo.errors import UserError
from lf_longpo.generation.generate import generate
from lf_longpo.models import quota
from lf_longpo.models.openai_chat import OpenAIChat
from lf_longpo.models.pace import Pace
from lf_longpo.models.serving import server_arguments
from lf_longpo.models.turns import Turns


def a_run(stub, folder, questions=12, **policy):
    """The configuration of a run against the stub, its settings changed for the policy."""
    folder.mkdir(exist_ok=True)
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(questions)))
    data["longmab"]["init"] = "random"
    data["policy"] |= policy
    return GenerateConfig.model_validate(data)


async def test_the_oldest_goes_first_and_at_the_end_the_longest_chain():
    turns, order = Turns(lambda: 1), []

    async def call(name, rank, following):
        async with turns.take(rank, following):
            order.append(name)
            await asyncio.sleep(0)

    calls = [("first", 5, 0), ("last, short", 9, 1), ("last, long", 9, 8), ("old", 2, 0), ("older", 1, 0)]
    await asyncio.gather(*(call(*one) for one in calls))
    assert order == ["first", "older", "old", "last, long", "last, short"]


async def test_turns_of_those_who_give_up_go_to_others():
    turns, done = Turns(lambda: 2), []

    async def call(number):
        async with turns.take(0, 0):
            await asyncio.sleep(0.01)
            done.append(number)

    tasks = [asyncio.create_task(call(number)) for number in range(30)]
    await asyncio.sleep(0.015)
    for task in tasks[1::2]:
        task.cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert set(range(0, 30, 2)) <= set(done)


def test_a_fixed_pace_is_halved_and_grows_back():
    pace = Pace(64)
    for _ in range(64):  # all were under way at the cut
        pace.refused(began=0.0, now=1.0)
    assert pace.limit == 32
    for _ in range(64 * 64):
        pace.came_back(2.0, 3.0, 100)
    assert pace.limit == 64


def test_a_few_refusals_change_nothing():
    pace = Pace(64)
    for number in range(2000):
        if number % 10:
            pace.came_back(number, number + 1, 100)
        else:
            pace.refused(number, number + 1)
    assert pace.limit == 64


def test_an_unknown_pace_doubles_until_the_server_slows_down():
    pace, clock = Pace(None), 0.0
    for _ in range(3000):
        # A server of 100 slots: what goes beyond waits.
        seconds = max(1.0, pace.limit / 100)
        clock += seconds / pace.limit
        pace.came_back(clock - seconds, clock, 100)
    assert 100 <= pace.limit <= 300


async def test_a_quota_holds_in_every_minute(monkeypatch):
    monkeypatch.setattr(quota, "_MINUTE", 0.3)
    requests, times = quota.Quota(5, asyncio.sleep), []

    async def take():
        await requests.take(1)
        times.append(time.monotonic())

    await asyncio.gather(*(take() for _ in range(17)))
    assert all(later - earlier >= 0.29 for earlier, later in zip(times, times[5:], strict=False))
    assert times[-1] - times[0] < 1.5
    await asyncio.wait_for(requests.take(50), 2)  # more than a minute's share


@pytest.mark.slow
async def test_a_crowded_server_is_not_asked_much_more_than_it_takes(key, tmp_path):
    class Crowded(Stub):
        refused = answered = 0

        async def _chat(self, request):
            if self.in_flight >= 8:
                self.refused += 1
                return web.json_response({"error": {"message": "busy"}}, status=429, headers={"Retry-After": "0"})
            self.answered += 1
            return await super()._chat(request)

    with Crowded(delay=0.02) as stub:
        result = await generate(a_run(stub, tmp_path, 40, max_concurrency=64, max_retries=8))
        assert result.summary["failed"] == 0
        assert stub.most_in_flight == 8 and stub.refused < stub.answered


@pytest.mark.slow
async def test_two_servers_share_a_run_and_one_may_die(key, tmp_path):
    with Stub(delay=0.02) as alone:
        whole = await generate(a_run(alone, tmp_path / "alone"))
        needed = alone.chats
    with Stub(delay=0.02) as first, Stub(delay=0.02) as second:
        config = a_run(first, tmp_path / "both", base_url=[first.base_url, second.base_url], max_retries=8)
        first.on_chat = lambda number: first.die() if number == needed // 4 else None
        both = await generate(config)
        assert first.chats >= needed // 4 and second.chats > needed // 2
        assert first.chats + second.chats <= needed + 8
    assert both.summary["failed"] == 0 and both.exit_code == whole.exit_code == 0
    assert (tmp_path / "both/data/codes.jsonl").read_bytes() == (tmp_path / "alone/data/codes.jsonl").read_bytes()


async def test_a_question_keeps_to_one_server_that_has_room(key, tmp_path):
    seen = ({}, {})

    def watch(stub, prompts):
        def answer(prompt, seed):
            prompts[prompt.rsplit("code of ", 1)[1].split("?")[0]] = True
            return "Answer: unknown. The answer is " + prompt.rsplit("Correct answer: ", 1)[-1].split("\n")[0]

        stub.answer = answer

    with Stub() as first, Stub() as second:
        watch(first, seen[0])
        watch(second, seen[1])
        urls = [first.base_url, second.base_url]
        await generate(a_run(first, tmp_path, base_url=urls, max_concurrency=64))
    assert seen[0] and seen[1] and not set(seen[0]) & set(seen[1])


async def test_one_of_two_servers_is_enough_to_start(key):
    with Stub() as stub:
        dead = "http://127.0.0.1:9/v1"
        model = OpenAIChat(ChatConfig(base_url=[dead, stub.base_url], model="stub-model", api_key_env="STUB_KEY"))
        assert await model.start() == 8192
        assert model.limit == 64  # the dead one's are not counted
        await model.close()
        nobody = OpenAIChat(ChatConfig(base_url=[dead, dead], model="stub-model", api_key_env="STUB_KEY"))
        with pytest.raises(UserError, match="start the server or fix base_url"):
            await nobody.start()
        await nobody.close()


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_lets_calls_come_back_and_twice_does_not(key, tmp_path, times):
    with Stub(delay=1.5 if times == 1 else 100.0) as stub:
        config = a_run(stub, tmp_path)
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(json.loads(config.model_dump_json(exclude_defaults=True))))
        run = start(tmp_path / "c.yaml")
        while stub.in_flight < 4:
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.01)
        asked = stub.chats
        for _ in range(times):
            run.send_signal(signal.SIGINT)
            time.sleep(0.2)
        assert run.wait(60) == 130
        told, printed = run.stderr.read(), run.stdout.read()
        assert told.startswith("loading ...\n") and "waiting for the calls under way" in told
        last = told.splitlines()[-1]
        assert last == f"interrupted; run the same command again to resume: longpo generate {tmp_path / 'c.yaml'}"
        assert "Traceback" not in told and "Next:" not in printed
        assert ("Interrupted: 12 of 12 questions are unfinished." in printed) == (times == 1)
        with sqlite3.connect(tmp_path / "run/calls.sqlite") as db:
            kept = db.execute("SELECT COUNT(*) FROM calls").fetchone()[0]
        assert stub.chats == asked and kept == (asked if times == 1 else 0)


def test_the_server_that_a_config_expects():
    config = ChatConfig(model="m", base_url=["http://gpu1:8001/v1", "http://gpu2/v1"], context_window=4096)
    arguments = server_arguments(config)
    told = dict(itertools.pairwise(arguments))
    assert (told["--host"], told["--port"], told["--max-num-seqs"], told["--max-model-len"]) == (
        "gpu1", "8001", "64", "4096",
    )  # fmt: skip
    for url, port in (("http://gpu2/v1", "80"), ("https://gpu2/v1", "443"), ("http://gpu2:8000/v1", "8000")):
        arguments = server_arguments(ChatConfig(model="m", base_url=url))
        assert arguments[arguments.index("--port") + 1] == port  # where the client looks for it
    with pytest.raises(UserError, match=r"base_url 'http://gpu2:80a/v1' is not an address"):
        server_arguments(ChatConfig(model="m", base_url="http://gpu2:80a/v1"))
    with pytest.raises(UserError, match="base_url names no server"):
        server_arguments(ChatConfig(model="m"))
