"""An OpenAI-compatible server whose answers follow from the request alone: the edge of what can be tested offline.

Chat answers depend on prompt and seed only, so a run against it has one right result. Everything above HTTP is real.
"""

import asyncio
import hashlib
import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable

from aiohttp import web

MODEL = "stub-model"
KEY = "stub-key-that-must-not-leak"


def deterministic_answer(prompt: str, seed: int) -> str:
    """Names a code word of the context in the asked form, most of the time the wrong way or not at all."""
    draw = hashlib.sha256(f"{seed}".encode()).digest()[0]
    wanted = re.search(r"code of (\w+)", prompt.rsplit("Question:", 1)[1])
    found = re.search(rf"The code of {wanted[1]} is (\w+)\.", prompt) if wanted else None
    given = re.search(r"Correct answer: (\w+)", prompt)
    if given:
        return f"The text states the code of {wanted[1]}. The answer is {given[1]}."
    if found and draw < 160:
        return f"Reasoning: the text says it.\nAnswer: {found[1]}"
    return "Reasoning: the text does not say.\nAnswer: unknown" if draw % 2 else "I cannot tell."


class Stub:
    """The server, on a thread and loop of its own, with counters that tests read."""

    path = "/v1"
    """Path of the API."""

    def __init__(self, answer: Callable[[str, int], str] = deterministic_answer, delay: float = 0.0) -> None:
        self.answer = answer
        self.delay = delay
        self.requests: Counter[str] = Counter()
        self.embedded_texts = 0
        self.seeded = 0
        self.in_flight = self.most_in_flight = 0
        self.fail: Callable[[dict], web.Response | None] = lambda body: None
        self.fail_embedding: Callable[[dict], web.Response | None] = lambda body: None
        self.models_text: str | None = None
        self.weights: Callable[[str, str], dict[str, float]] | None = None
        """Probabilities of what may follow the brackets, given the prompt and the reply so far."""
        self.on_chat: Callable[[int], None] = lambda number: None
        self.count_tokens: Callable[[str], int] = lambda text: len(text.split())
        self._ready = threading.Event()

    @property
    def chats(self) -> int:
        return sum(self.requests.values())

    def __enter__(self) -> "Stub":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_) -> None:
        if not self._stop.is_set():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def die(self) -> None:
        """Stops serving; for its own thread."""
        self._stop.set()

    def add_routes(self, app: web.Application) -> None:
        """For those that serve more."""

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get(f"{self.path}/models", self._models)
        app.router.add_post(f"{self.path}/chat/completions", self._chat)
        app.router.add_post(f"{self.path}/embeddings", self._embeddings)
        self.add_routes(app)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.base_url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}{self.path}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def _rejects(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == f"Bearer {KEY}":
            return None
        return web.json_response({"error": {"message": "bad key"}}, status=401)

    async def _models(self, request: web.Request) -> web.Response:
        if self.models_text is not None:
            return web.Response(text=self.models_text, content_type="application/json")
        data = [{"id": MODEL, "object": "model", "created": 0, "owned_by": "tests", "max_model_len": 8192}]
        return self._rejects(request) or web.json_response({"object": "list", "data": data})

    async def _chat(self, request: web.Request) -> web.Response:
        if rejection := self._rejects(request):
            return rejection
        body = await request.json()
        self.requests[hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()] += 1
        self.seeded += "seed" in body
        self.on_chat(self.chats)
        if (failure := self.fail(body)) is not None:
            return failure
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.in_flight -= 1
        return web.json_response(self.reply_to(body))

    def reply_to(self, body: dict) -> dict:
        """The completion of a request."""
        messages = [message["content"] for message in body["messages"] if message["role"] != "system"]
        prompt, start = [*messages, ""][:2]
        assert bool(start) == bool(body.get("continue_final_message"))
        if start.rstrip("0123456789").endswith("[["):
            weights = self.weights(prompt, start)
            text = max(weights, key=weights.get)
        else:
            text = self.answer(prompt, body.get("seed", 0))
        message = {"role": "assistant", "content": text}
        used = self.count_tokens(prompt + start), self.count_tokens(text)
        usage = {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs") and self.weights:
            choice["logprobs"] = {"content": self._logprobs(prompt, start, text)}
        return {
            "id": "c", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice], "usage": usage,
        }  # fmt: skip

    def _logprobs(self, prompt: str, start: str, text: str) -> list[dict]:
        """Each token sure of itself, but for the one behind the last brackets."""
        content, said = [], start
        for token in re.findall(r"\[\[|\]\]|\w+|\W", text):
            weights = {token: 1.0}
            if "[[" in said and "[[" not in (start + text)[len(said) :] and "]]" not in said[said.rindex("[[") :]:
                weights = self.weights(prompt, said)
            top = [{"token": other, "logprob": math.log(share), "bytes": None} for other, share in weights.items()]
            content.append({"token": token, "logprob": 0.0, "bytes": None, "top_logprobs": top})
            said += token
        return content

    async def _embeddings(self, request: web.Request) -> web.Response:
        if rejection := self._rejects(request):
            return rejection
        body = await request.json()
        if (failure := self.fail_embedding(body)) is not None:
            return failure
        self.embedded_texts += len(body["input"])
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(text)}
            for index, text in enumerate(body["input"])
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return web.json_response({"object": "list", "data": data, "model": body["model"], "usage": usage})


def _vector(text: str) -> list[float]:
    """A bag of words, hashed into 64 places."""
    vector = [0.01] * 64
    for word in re.findall(r"\w+", text.lower()):
        vector[hashlib.sha256(word.encode()).digest()[0] % 64] += 1.0
    return vector
