"""Servers that send anything: every reply ends as a completion or as an error of ours, whatever stands in it.

Replies of each kind are broken at random places of their structure; the seed is fixed.
"""

import asyncio
import copy
import json
import math
import random
from collections import Counter
from typing import Any

import pytest
from aiohttp import web
from conftest import code_questions, judged, run_settings, write_jsonl
from stub import MODEL, Stub, deterministic_answer

from lf_longpo.config import ChatConfig, EmbedderConfig, GenerateConfig, SamplingConfig
from lf_longpo.errors import CallFailed, UserError
from lf_longpo.generation.generate import generate
from lf_longpo.models import calls
from lf_longpo.models.batch_chat import BatchChat
from lf_longpo.models.batch_store import BatchStore
from lf_longpo.models.cache import CallCache, CallKey
from lf_longpo.models.chat import ChatRequest, Completion
from lf_longpo.models.embedders import make_embedder
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.openai_chat import OpenAIChat
from lf_longpo.models.openai_client import plain_errors, refuse_error
from lf_longpo.models.openai_wire import read_reply

REPLIES = 2_000
REQUEST = ChatRequest("How?", SamplingConfig(), 1)
WEIGHING = ChatRequest("How?", SamplingConfig(), 1, weigh_after="[[")
BROKEN = "⟪broken⟫"
"""Stands in the text of every reply that is none."""
_USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 4}}
_LOGPROBS = [
    {
        "token": token,
        "logprob": -0.1,
        "top_logprobs": [{"token": other, "logprob": -0.5} for other in (token, "7", "10")],
    }
    for token in ("So", " [[", "8", "]]")
]
_ODD = [
    None, True, False, 0, -1, 3.5, 10**40, -(10**400), 1e308, float("nan"), float("inf"), "", " \n", "\ud83d", "\udc00",
    "\x00", "\u202e", "9" * 5000, "word " * 50_000, "[[" * 5_000, "length", "error", [], {}, [[]], [None],
    {"text": "x"}, [{"type": "text"}], [{"type": "text", "text": None}], [{"type": "text", "text": "in parts"}],
    [{"type": "image_url"}], {"message": "an error", "code": 429}, {"code": [], "message": {}},
]  # fmt: skip
"""What may stand where something else should."""


def a_reply(content: Any = "So [[8]]", reason: Any = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}
    choice["logprobs"] = {"content": copy.deepcopy(_LOGPROBS)}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice], "usage": _USAGE}


KINDS = [
    a_reply(),
    a_reply([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "So [[8]]"}]),
    a_reply(None, refusal="I would rather not."),
    a_reply("Half of", "length"),
    {"error": {"message": "overloaded", "type": "server_error", "code": 503}},
]


def mutated(draw: random.Random, value: Any) -> Any:
    """A copy with one to three faults."""
    value = copy.deepcopy(value)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return value
        holder, key = draw.choice(places)
        fault = draw.randrange(5)
        if fault == 0:
            del holder[key]
        elif fault == 1:
            holder[key] = [holder[key]]
        elif fault == 2 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif fault == 3 and isinstance(holder, dict):
            holder[draw.choice(("error", "extra", "\ud83d", "content"))] = copy.deepcopy(draw.choice(_ODD))
        else:
            holder[key] = copy.deepcopy(draw.choice(_ODD))
    return value


def _places(value: Any):
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def mutations(kind: Any, number: int, seed: int = 0) -> list[Any]:
    draw = random.Random(f"{seed}/{kind}")
    return [*_ODD, *(mutated(draw, kind) for _ in range(number))]


def usable(completion: Completion) -> None:
    """Whether nothing that comes after the wire can stumble over a completion."""
    completion.text.encode()
    assert 0 <= completion.prompt_tokens < 2**63 and 0 <= completion.completion_tokens < 2**63
    assert 0 <= completion.cached_tokens < 2**63 and isinstance(completion.finish_reason, str)
    assert completion.weights is None or all(map(_is_share, completion.weights.values()))


def _is_share(weight: float) -> bool:
    return math.isfinite(weight) and weight >= 0


def test_any_reply_is_a_completion_or_an_error_of_ours():
    cache = CallCache(None)
    cache.open()
    read = refused = 0
    for kind in KINDS:
        for number, reply in enumerate(mutations(kind, REPLIES // len(KINDS))):
            try:
                with plain_errors("http://server/v1", "KEY"):
                    refuse_error("http://server/v1", reply)
                    completion = read_reply(reply, WEIGHING if number % 2 else REQUEST)
            except (CallFailed, UserError) as error:
                str(error).encode()
                refused += 1
            else:
                usable(completion)
                key = CallKey("s", "q", 0, "r")
                cache.put(key, completion.plain())
                assert Completion(**cache.get(key)) == completion
                read += 1
    cache.close()
    assert read > REPLIES / 8 and refused > REPLIES / 4


def test_any_line_of_a_batch_is_a_completion_or_an_error_of_ours(key):
    config = ChatConfig(provider="openai", model="m", batch=True, api_key_env="STUB_KEY")
    chat = BatchChat(config, BatchStore(None), Ledger())
    row = {"custom_id": "a", "response": {"status_code": 200, "body": a_reply()}, "error": None}
    for line in map(json.dumps, mutations(row, 400)):
        chat._batches._store_replies("file", [line.encode(), line.encode()[:-1], b"\xff" + line.encode()])
        try:
            usable(chat._read(line, REQUEST))
        except (CallFailed, UserError) as error:
            str(error).encode()
    asyncio.run(chat.close())


async def test_any_vectors_are_unit_vectors_or_an_error_of_ours(stub):
    kind = {"data": [{"index": 0, "embedding": [3.0, 4.0]}, {"index": 1, "embedding": [1.0, 0.0]}], "usage": _USAGE}
    replies = iter(mutations(kind, 200))
    stub.fail_embedding = lambda body: as_json(next(replies))
    cache = CallCache(None)
    cache.open()
    config = EmbedderConfig(backend="openai", model="e", base_url=stub.base_url, api_key_env="STUB_KEY")
    embedder = make_embedder(config, cache, Ledger())
    for number in range(200):
        try:
            vectors = await embedder.embed(f"q{number}", ["a", "b"])
        except (CallFailed, UserError) as error:
            str(error).encode()
        else:
            assert vectors.shape[0] == 2 and all(math.isclose(sum(vector**2), 1.0, rel_tol=1e-5) for vector in vectors)
    await embedder.close()


async def test_any_list_of_models_is_a_window_or_an_error_of_ours(stub):
    kind = {
        "object": "list",
        "data": [{"id": MODEL, "max_model_len": None, "parent": "b"}, {"id": "b", "max_model_len": 9}],
    }
    chat = OpenAIChat(ChatConfig(model=MODEL, base_url=stub.base_url, api_key_env="STUB_KEY"))
    for models in mutations(kind, 200):
        stub.models_text = json.dumps(models)
        try:
            window = await chat.start()
        except UserError as error:
            str(error).encode("utf-8", "backslashreplace")
        else:
            assert window is None or window > 0
    await chat.close()


def as_json(value: Any) -> web.Response:
    return web.Response(text=json.dumps(value), content_type="application/json")


def broken(draw: random.Random, text: str) -> web.Response:
    """A reply that is none, though the text stands somewhere in it."""
    text = f"{BROKEN} {text}"
    replies: list[Any] = [
        *(a_reply(text, reason) for reason in ("error", "abort", "content_filter")),
        *(a_reply(text, reason) for reason in ("length", "length", "max_tokens", "model_length")),
        a_reply({"text": text}),
        a_reply([{"type": "thinking", "text": text}]),
        a_reply([{"type": "text", "text": text}, {"type": "text", "text": 7}]),
        a_reply(None, refusal=text),
        a_reply(text, refusal=text),
        a_reply("", "stop", reasoning=" "),
        a_reply() | {"choices": {"message": {"content": text}}},
        a_reply() | {"choices": [text]},
        a_reply(text) | {"error": {"message": text, "code": 502}},
        {"error": text},
        {"object": "error", "message": text},
        [a_reply(text)],
        text,
    ]
    whole = json.dumps(a_reply(text)).encode()
    bodies = [
        whole[: len(whole) // 2],
        whole + whole,
        b"\xff" + whole,
        b"[" * 100_000 + whole,
        f"<p>{text}</p>".encode(),
    ]
    body = draw.choice([*(json.dumps(reply).encode() for reply in replies), *bodies])
    return web.Response(body=body, content_type=draw.choice(["application/json", "text/html"]))


class Fuzzing(Stub):
    """Breaks a share of all replies, and changes others in ways that leave them what they are."""

    def __init__(self, *args, share: float, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._share = share
        self._tries: Counter[str] = Counter()
        self.broken = 0
        self.fail = self._broken
        self.fail_embedding = self._broken_vectors

    def _draw(self, body: dict) -> random.Random:
        """The same whatever order the requests come in, and another one for the next try."""
        asked = json.dumps(body, sort_keys=True)
        self._tries[asked] += 1
        return random.Random(f"{asked}/{self._tries[asked]}")

    def _broken(self, body: dict) -> web.Response | None:
        draw = self._draw(body)
        if draw.random() >= self._share:
            return None
        self.broken += 1
        return broken(draw, self.answer(body["messages"][0]["content"], body["seed"]))

    def _broken_vectors(self, body: dict) -> web.Response | None:
        draw = self._draw(body)
        if draw.random() >= self._share / 4 or body["input"] == ["ready"]:
            return None
        return as_json(mutated(draw, {"data": [{"index": 0, "embedding": [1.0, 0.0]}]}))

    def reply_to(self, body: dict) -> dict:
        reply = super().reply_to(body)
        draw = self._draw(body)
        choice, odd = reply["choices"][0], copy.deepcopy(draw.choice(_ODD))
        if (change := draw.randrange(6)) == 0:
            reply["usage"] = odd
        elif change == 1:
            choice["finish_reason"] = None
        elif change == 2:
            choice["message"]["content"] = [{"type": "text", "text": choice["message"]["content"]}]
        elif change == 3:
            choice["logprobs"] = reply["id"] = choice["message"]["role"] = odd
        elif change == 4:
            choice["message"]["content"] += " \ud83d"
        return reply


@pytest.mark.slow
@pytest.mark.parametrize(("method", "answer"), [("longmab", deterministic_answer), ("longreward", judged)])
async def test_a_run_accounts_for_every_question_and_trains_on_no_broken_reply(
    key, tmp_path, monkeypatch, method, answer
):
    monkeypatch.setattr(calls, "_FIRST_WAIT", 0.001)
    with Fuzzing(answer, share=0.3) as stub:
        data = run_settings(stub, tmp_path, write_jsonl(tmp_path / "q.jsonl", code_questions(12)))
        data["policy"] |= {"max_retries": 3, "max_concurrency": 8}
        data["longmab"]["rounds"] = 12
        if method == "longreward":
            del data["longmab"]
            data |= {"judge": data["policy"], "longreward": {"num_samples": 5, "min_responses": 2, "chunk_size": 800}}
        summary = (await generate(GenerateConfig.model_validate(data | {"method": method}))).summary
    assert stub.broken > 30
    without = ("failed", "all_equal", "cut_off", "left_out", "too_few_responses")
    assert summary["pairs"] + sum(summary.get(name, 0) for name in without) == 12 and summary["unfinished"] == 0
    assert summary["pairs"] > 2 and sum(stage["truncated"] for stage in summary["calls"].values()) > 2
    failures = [json.loads(line) for line in (tmp_path / "run/failures.jsonl").read_text("utf-8").splitlines()]
    assert failures and not [row for row in failures if "traceback" in row]
    for path in (tmp_path / "run/pairs.jsonl", tmp_path / "data/codes.jsonl"):
        pairs = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert len(pairs) == summary["pairs"] and BROKEN not in path.read_text("utf-8")
        assert all(pair["chosen"].strip() and pair["rejected"].strip() for pair in pairs)
