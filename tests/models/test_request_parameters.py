"""Parameters that a model refuses, by its name or learnt from the first refusal; which server an address is."""

import json

import pytest
from aiohttp import web
from batch_stub import BatchStub
from conftest import code_questions, judged, run_settings, write_jsonl
from stub import KEY, MODEL, Stub

from lf_longpo.config import ChatConfig, GenerateConfig, SamplingConfig
from lf_longpo.config.providers import is_hosted, provider_at
from lf_longpo.errors import Refused, UserError
from lf_longpo.generation.generate import generate
from lf_longpo.models.chat import ChatRequest
from lf_longpo.models.openai_chat import OpenAIChat
from lf_longpo.models.openai_client import make_client
from lf_longpo.models.request_parameters import ParameterRefused, RequestParameters, refused_parameter

BODY = {
    "model": "m",
    "temperature": 0.01,
    "max_tokens": 9,
    "top_p": 0.95,
    "presence_penalty": 1.0,
    "seed": 7,
    "logprobs": True,
}
REQUEST = ChatRequest("Question: What is the code of place1?", SamplingConfig(), 1)


def unsupported(kind: str, name: str, advice: str) -> web.Response:
    message = f"Unsupported {kind}: '{name}' {advice}"
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": name,
        "code": f"unsupported_{kind}",
    }
    return web.json_response({"error": error}, status=400)


class ReasoningStub(Stub):
    """Refuses what OpenAI's reasoning models refuse, one parameter a reply, in their words."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.refusals = 0
        self.fail = self._refuse

    def _refuse(self, body: dict) -> web.Response | None:
        self.refusals += 1
        if "max_tokens" in body:
            advice = "is not supported with this model. Use 'max_completion_tokens' instead."
            return unsupported("parameter", "max_tokens", advice)
        if body.get("temperature", 1) != 1:
            return unsupported(
                "value", "temperature", "does not support this value. Only the default (1) is supported."
            )
        for name in ("top_p", "presence_penalty"):
            if body.get(name):
                return unsupported("parameter", name, "is not supported with this model.")
        self.refusals -= 1
        assert "max_completion_tokens" in body
        return None


def serve_as(stub, model):
    stub.models_text = json.dumps({"object": "list", "data": [{"id": model, "max_model_len": 8192}]})
    return model


def a_run(stub, folder, model, **changes):
    folder.mkdir(exist_ok=True)
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(6)))
    data["policy"]["model"] = model
    if "method" in changes:
        del data["longmab"]
    else:
        data["longmab"]["sampling"] = {"temperature": 0.8}
    return GenerateConfig.model_validate(data | changes)


@pytest.mark.slow
@pytest.mark.parametrize("model", [MODEL, "o4-mini"])
async def test_a_run_with_a_reasoning_model_makes_the_same_data_set(key, tmp_path, capsys, model):
    with Stub() as plain:
        await generate(a_run(plain, tmp_path / "plain", MODEL))
    assert "does not support" not in capsys.readouterr().err
    with ReasoningStub() as stub:
        result = await generate(a_run(stub, tmp_path / "reasoning", serve_as(stub, model)))
    assert result.exit_code == 0 and result.summary["failed"] == 0
    data_sets = [(tmp_path / name / "data/codes.jsonl").read_bytes() for name in ("plain", "reasoning")]
    assert data_sets[0] == data_sets[1]
    # By name without a refusal; otherwise each of the four calls under way at first may meet all four of them.
    assert stub.refusals == 0 if model == "o4-mini" else 4 <= stub.refusals <= 16
    assert stub.chats - stub.refusals == plain.chats
    reports = [line for line in capsys.readouterr().err.splitlines() if "does not support these parameters" in line]
    named = [name for line in reports for name in line.partition(": ")[2].partition(".")[0].split(", ")]
    assert sorted(named) == ["presence_penalty", "temperature", "top_p"]
    assert all(line.startswith(f"{model} does not") for line in reports)


async def test_a_judge_that_is_a_reasoning_model_rates_every_response(key, tmp_path):
    with ReasoningStub(judged) as stub:
        server = {"base_url": stub.base_url, "api_key_env": "STUB_KEY"}
        changes = {
            "method": "longreward",
            "judge": {"model": MODEL, "max_concurrency": 4, **server},
            "longreward": {"num_samples": 3, "min_responses": 2, "chunk_size": 400},
        }
        result = await generate(a_run(stub, tmp_path, MODEL, **changes))
        assert result.summary["failed"] == 0 and result.summary["pairs"]
        assert len((tmp_path / "run/scored_responses.jsonl").read_text().splitlines()) == 6 * 3


async def test_a_batch_of_a_reasoning_model_is_handed_in_without_what_it_refuses(key, tmp_path, monkeypatch):
    monkeypatch.setattr("lf_longpo.models.batch_chat._QUIET", 0.1)
    monkeypatch.setattr("lf_longpo.models.batches._FIRST_LOOK", 0.05)
    with BatchStub() as stub:
        config = a_run(stub, tmp_path, serve_as(stub, "gpt-5-mini"))
        policy = ChatConfig(batch=True, **{
            name: value for name, value in config.policy.model_dump(exclude_unset=True).items()
            if name != "max_concurrency"
        })  # fmt: skip
        result = await generate(config.model_copy(update={"policy": policy}))
        assert result.summary["failed"] == 0 and stub.batches
        uploads = [stub.files[batch["input_file_id"]] for batch in stub.batches.values()]
    bodies = [json.loads(line)["body"] for upload in uploads for line in upload.splitlines()]
    assert {frozenset(body) for body in bodies} == {frozenset({"model", "messages", "max_completion_tokens", "seed"})}


@pytest.mark.parametrize(
    ("model", "left"),
    [
        ("o1", {"model", "max_completion_tokens", "seed", "logprobs"}),
        ("o3-mini-2025-01-31", {"model", "max_completion_tokens", "seed", "logprobs"}),
        ("ft:o4-mini-2025-04-16:org::id", {"model", "max_completion_tokens", "seed", "logprobs"}),
        ("openai/gpt-5", {"model", "max_completion_tokens", "seed", "logprobs"}),
        ("gpt-5.1", set(BODY) - {"max_tokens"} | {"max_completion_tokens"}),
        ("gpt-5-chat-latest", set(BODY) - {"max_tokens"} | {"max_completion_tokens"}),
        ("gpt-4o", set(BODY)),
        ("gpt-50", set(BODY)),
        ("AIDC-AI/Marco-o1", set(BODY)),
    ],
)
def test_what_is_known_by_the_models_name(model, left):
    assert set(RequestParameters(model).adapt(BODY)) == left


@pytest.mark.parametrize(
    ("code", "named", "words", "parameter"),
    [
        ("unsupported_parameter", "top_p", "?", "top_p"),
        ("unsupported_value", "temperature", "?", "temperature"),
        ("", None, "Unsupported value: 'temperature' does not support 0.01 with this model.", "temperature"),
        ("400", None, 'litellm.BadRequestError: Unsupported parameter: "max_tokens" is not supported', "max_tokens"),
        ("unsupported_parameter", None, "top_p", ""),
        ("invalid_value", "temperature", "temperature must be below 2", ""),
        ("unsupported_parameter", {"a": 1}, "", ""),
    ],
)
def test_the_parameter_that_a_refusal_names(code, named, words, parameter):
    assert refused_parameter(code, named, words) == parameter


def test_only_what_a_request_can_do_without_is_learnt():
    parameters = RequestParameters("m")
    assert not parameters.learn(ParameterRefused("", "messages"), BODY | {"messages": []})
    assert not parameters.learn(ParameterRefused("", "logprobs"), BODY)  # verdicts by expectation need it
    assert not parameters.learn(ParameterRefused("", "top_p"), {"model": "m"})  # not sent: the same would come again
    assert parameters.learn(ParameterRefused("", "seed"), BODY)
    assert parameters.adapt(BODY) == {name: value for name, value in BODY.items() if name != "seed"}


async def test_a_parameter_that_is_refused_whatever_is_sent_is_a_refusal(stub):
    stub.fail = lambda body: unsupported("parameter", "max_tokens", "is not supported.")
    chat = OpenAIChat(ChatConfig(model=MODEL, base_url=stub.base_url, api_key_env="STUB_KEY"))
    with pytest.raises(Refused, match="Unsupported parameter: 'max_tokens'"):
        await chat.complete(REQUEST)
    await chat.close()
    assert stub.chats == 2


@pytest.mark.parametrize(
    ("address", "provider"),
    [
        (None, "openai"),
        ("https://api.openai.com/v1", "openai"),
        ("https://api.openai.com/v1/", "openai"),
        ("https://API.OpenAI.com:443/v1", "openai"),
        ("https://api.openai.com./v1", "openai"),
        ("https://mine.openai.azure.com/openai/v1/", "azure"),
        ("https://Mine.Services.AI.Azure.com/openai/v1/", "azure"),
        ("https://open.bigmodel.cn/api/coding/paas/v4", "zhipu"),
        ("https://api.deepseek.com", "deepseek"),
        ("http://127.0.0.1:8000/v1", None),
        ("http://api.openai.com.evil.example/v1", None),
        ("https://notopenai.azure.com/v1", None),
        ("api.openai.com/v1", None),
        ("http://[x/v1", None),
    ],
)
def test_providers_are_known_by_their_host(address, provider):
    assert provider_at(address) == provider and is_hosted(address) == (provider is not None)


@pytest.mark.parametrize("address", ["https://api.openai.com/v1/", "https://mine.openai.azure.com/openai/v1"])
def test_a_providers_server_needs_its_key(address, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError, match="the environment variable NO_SUCH_KEY is not set"):
        make_client(address, "NO_SUCH_KEY", 1.0, 0)


async def test_a_key_that_is_not_set_is_reported_as_unset_and_a_wrong_one_as_rejected(stub, monkeypatch):
    chat = OpenAIChat(ChatConfig(model=MODEL, base_url=stub.base_url, api_key_env="OTHER_KEY"))
    monkeypatch.delenv("OTHER_KEY", raising=False)
    with pytest.raises(UserError, match=r"needs a key \(401\) and the environment variable OTHER_KEY is not set; put"):
        await chat.start()
    monkeypatch.setenv("OTHER_KEY", f"wrong-{KEY}")
    with pytest.raises(UserError, match=r"rejects the key in OTHER_KEY \(401\); set that variable") as caught:
        await chat.start()
    await chat.close()
    assert KEY not in str(caught.value)
