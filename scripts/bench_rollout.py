"""How busy `longpo generate` keeps a server, compared with a driver that runs 50 questions in lock-step rounds.

    python scripts/bench_rollout.py                                     # 500 questions, 30 rounds, 64 slots
    python scripts/bench_rollout.py --questions 100 --seconds-a-token 0.0006
    python scripts/bench_rollout.py --lean --seconds-a-token 0.004      # questions end early (longmab.preset: lean)

Both use the same server, a process with the OpenAI API and a number of slots. A reply takes a time proportional to its
new tokens; their number is log-normal like that of real replies (median 300, cut at 1,024) and depends only on the
call's seed. "Slots busy" is the time that slots spend on replies divided by the time of all slots, from the first call
to the last reply. The lock-step driver works like the published LongMab-PO script: a round of a batch begins when the
round before has ended for the whole batch. Contexts are short and no embedder runs, so only the scheduling is measured.
"""

import argparse
import asyncio
import hashlib
import json
import math
import multiprocessing
import os
import random
import re
import resource
import tempfile
import time
from pathlib import Path

MEDIAN, SIGMA, CUT = 300, 0.7, 1024
BATCH = 50
# The chance of a right answer in each round, of a question and of those that follow it; the first is never answered.
CHANCES = (0.0, 0.5, 0.2, 0.8, 0.05)


def serve(port: multiprocessing.Queue, slots: int, seconds_a_token: float) -> None:
    """Runs the server until it is terminated, and puts its port into the queue."""
    from aiohttp import web

    free = asyncio.Semaphore(slots)
    state = {"busy": 0.0, "calls": 0, "first": math.inf, "last": 0.0}

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        state["first"] = min(state["first"], time.monotonic())
        draw = random.Random(body["seed"])
        tokens = min(round(MEDIAN * draw.lognormvariate(0, SIGMA)), CUT)
        async with free:
            began = time.monotonic()
            await asyncio.sleep(tokens * seconds_a_token)
            state["last"] = time.monotonic()
            state["busy"] += state["last"] - began
        state["calls"] += 1
        prompt = body["messages"][0]["content"]
        code = prompt.split("The code is ", 1)[-1].split(".", 1)[0]
        text = f"The text tells it. The answer is {code}." if "Correct answer" in prompt else "Answer: it is unknown."
        lamp = re.search("Lamp ([0-9]+) hangs", prompt)
        if lamp and draw.random() < CHANCES[int(lamp[1]) % len(CHANCES)]:
            text = f"The text tells it. The answer is {code}.\nAnswer: {code}"
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response(
            {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        )

    async def models(request: web.Request) -> web.Response:
        data = [{"id": "m", "object": "model", "created": 0, "owned_by": "bench", "max_model_len": 8192}]
        return web.json_response({"object": "list", "data": data})

    async def stats(request: web.Request) -> web.Response:
        stats = dict(state)
        state.update(busy=0.0, calls=0, first=math.inf, last=0.0)
        return web.json_response(stats)

    async def run() -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.add_routes(
            [web.post("/v1/chat/completions", chat), web.get("/v1/models", models), web.get("/stats", stats)]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.put(site._server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(run())


def ours(url: str, folder: Path, questions: int, rounds: int, slots: int, preset: str = "paper") -> None:
    """`longpo generate` from its beginning to the registered data set."""
    from lf_longpo.config import LongMabGenerateConfig
    from lf_longpo.generation.generate import generate

    lines = []
    for number in range(questions):
        code = hashlib.sha256(str(number).encode()).hexdigest()[:8]
        context = f"The code is {code}. " + f"Lamp {number} hangs in the tower and shines over the river. " * 40
        lines.append(json.dumps({"id": f"q{number}", "question": "Which code?", "answer": code, "context": context}))
    (folder / "q.jsonl").write_text("\n".join(lines) + "\n")
    config = LongMabGenerateConfig(
        method="longmab",
        input=str(folder / "q.jsonl"),
        output_dir=folder / "run",
        dataset_dir=folder / "data",
        dataset_name="bench",
        # More calls than slots are in flight, so that no slot is empty while its reply is on the way.
        policy={"base_url": url, "model": "m", "max_concurrency": slots + slots // 8},
        tokenizer="smollm2-135m",
        longmab={"preset": preset, "rounds": rounds, "chunk_size": 128, "init": "random"},
        pairs={"template": "llama3"},
    )
    result = asyncio.run(generate(config))
    assert result.summary["rollouts"] + result.summary["rounds_saved"] == questions * rounds, result


def lock_step(url: str, questions: int, rounds: int) -> None:
    """Runs batches of questions; a round begins when the round before has ended for the whole batch."""
    from lf_longpo.config import ChatConfig, SamplingConfig
    from lf_longpo.models.chat import ChatRequest
    from lf_longpo.models.openai_chat import OpenAIChat

    async def run() -> None:
        model = OpenAIChat(ChatConfig(base_url=url, model="m"))
        draw = random.Random(0)
        for start in range(0, questions, BATCH):
            for _ in range(rounds + 1):
                batch = range(start, min(start + BATCH, questions))
                requests = [ChatRequest("Which code?", SamplingConfig(), draw.getrandbits(31)) for _ in batch]
                await asyncio.gather(*map(model.complete, requests))
        await model.close()

    asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--seconds-a-token", type=float, default=0.001, help="(%(default)s)")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--lean", action="store_true", help="questions end early; without the lock-step driver")
    options = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = "none"
    import urllib.request

    context = multiprocessing.get_context("spawn")
    port: multiprocessing.Queue = context.Queue()
    server = context.Process(target=serve, args=(port, options.slots, options.seconds_a_token), daemon=True)
    server.start()
    root = f"http://127.0.0.1:{port.get()}"

    def measure(name: str, drive: callable) -> float:
        before = resource.getrusage(resource.RUSAGE_SELF)
        drive()
        after = resource.getrusage(resource.RUSAGE_SELF)
        with urllib.request.urlopen(f"{root}/stats") as reply:
            stats = json.load(reply)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        seconds = stats["last"] - stats["first"]
        print(
            f"{name:10} {stats['calls']:6} calls in {seconds:6.1f} s, {stats['calls'] / seconds:5.1f} a second, "
            f"slots busy {stats['busy'] / options.slots / seconds:.3f}, client CPU "
            f"{1000 * cpu / stats['calls']:.2f} ms a call",
            flush=True,
        )
        return seconds / stats["calls"]

    with tempfile.TemporaryDirectory() as name:  # so that importing everything is not counted
        ours(f"{root}/v1", Path(name), questions=8, rounds=4, slots=options.slots)
    urllib.request.urlopen(f"{root}/stats").close()
    with tempfile.TemporaryDirectory() as name:
        sizes = options.questions, options.rounds, options.slots, "lean" if options.lean else "paper"
        took = measure("ours", lambda: ours(f"{root}/v1", Path(name), *sizes))
    if not (options.ours_only or options.lean):
        theirs = measure("lock-step", lambda: lock_step(f"{root}/v1", options.questions, options.rounds))
        print(f"{theirs / took:.2f}x as fast as lock-step")
    server.terminate()


if __name__ == "__main__":
    main()
