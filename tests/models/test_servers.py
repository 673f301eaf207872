"""Settings of requests (system, extra_body, extra_headers), and servers with paths, keys and refusals of their own."""

import json
import sqlite3

import pytest
from aiohttp import web
from batch_stub import BatchStub
from conftest import code_questions, judged, run_settings, write_jsonl
from pydantic import ValidationError
from servers import SERVERS, ServerStub
from stub import KEY, MODEL

from lf_longpo.config import ChatConfig, EmbedderConfig, GenerateConfig, JudgingConfig, SamplingConfig
from lf_longpo.config.loading import load_config
from lf_longpo.errors import CallFailed, UserError
from lf_longpo.generation.generate import generate
from lf_longpo.longreward.judge import LongRewardJudge
from lf_longpo.models.chat import ChatRequest
from lf_longpo.models.openai_chat import OpenAIChat
from lf_longpo.models.tokenizers import chat_ids, chat_tokens, load_chat_tokenizer
from lf_longpo.plugin.registry import load_dataset_info

SYSTEM = "You read long texts."
REQUEST = ChatRequest("Question: What is the code of place1?", SamplingConfig(), 1)


def policy_of(stub, **settings):
    return ChatConfig(**{"model": MODEL, "base_url": stub.base_url, "api_key_env": "STUB_KEY"} | settings)


def a_run(stub, folder, sections=None, **policy):
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(4))) | (sections or {})
    data["policy"] |= policy
    return GenerateConfig.model_validate(data)


def a_judged_run(stub, folder, judge, **longreward):
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(4)))
    del data["longmab"]
    data |= {"method": "longreward", "judge": data["policy"] | {"max_concurrency": 1} | judge}
    data["longreward"] = {"num_samples": 2, "min_responses": 2, "chunk_size": 400} | longreward
    return GenerateConfig.model_validate(data)


@pytest.fixture
def server(key):
    with ServerStub() as stub:
        yield stub


async def test_every_request_has_the_system_prompt_the_parameters_and_the_headers(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "s3cret-value")
    kwargs = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 20}
    headers = {"X-Key": "Token $MY_SECRET", "X-Other": "${MY_SECRET}!", "X-Plain": "v1"}
    config = a_run(server, tmp_path, system=SYSTEM, extra_body=kwargs, extra_headers=headers)
    result = await generate(config)
    assert result.summary["failed"] == 0 and result.summary["pairs"]
    assert server.bodies
    for body in server.bodies:
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert body["messages"][0]["content"] == SYSTEM
        assert (body["chat_template_kwargs"], body["top_k"]) == ({"enable_thinking": False}, 20)
    chats = [sent for sent in server.headers if "X-Key" in sent]
    assert {(sent["X-Key"], sent["X-Other"], sent["X-Plain"]) for sent in chats} == {
        ("Token s3cret-value", "s3cret-value!", "v1")
    }
    saved = (tmp_path / "run/config.yaml").read_text()
    assert "Token $MY_SECRET" in saved and "top_k: 20" in saved
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert b"s3cret-value" not in path.read_bytes(), path


async def test_requests_without_the_settings_are_as_before(server, tmp_path):
    """The hash in the cache of a run that an earlier version made."""
    await OpenAIChat(policy_of(server)).complete(REQUEST)
    assert set(server.bodies[0]) == {"model", "messages", "temperature", "max_tokens", "top_p", "seed"} | (
        {"presence_penalty"} if REQUEST.sampling.presence_penalty else set()
    )
    assert policy_of(server).request_settings == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"system": "You are another one."},
        {"extra_body": {"provider": {"order": ["b"]}}},
        {"extra_headers": {"X-Route": "b"}},
        {"system": None},
        {"extra_body": None},
    ],
)
async def test_a_change_reuses_no_reply_and_is_refused_on_resuming(server, tmp_path, change):
    # `provider` is also a setting that may change; as a parameter (OpenRouter's routing) it may not.
    first = {
        "system": SYSTEM,
        "extra_body": {"provider": {"order": ["a"]}},
        "extra_headers": {"X-Route": "a"},
    }
    await generate(a_run(server, tmp_path, **first))
    before = server.chats
    await generate(a_run(server, tmp_path, **first))
    assert server.chats == before
    with pytest.raises(UserError, match=f"policy.{next(iter(change))} was .* and is now"):
        await generate(a_run(server, tmp_path, **first | change))
    # Even if the folder's settings are lost, no old reply is taken.
    (tmp_path / "data/dataset_info.json").unlink()  # its entry has the column system or not
    for name in ("config.yaml", "probes.jsonl", "rollouts.jsonl", "pairs.jsonl"):
        (tmp_path / "run" / name).unlink()
    await generate(a_run(server, tmp_path, **first | change))
    assert server.chats == 2 * before
    with sqlite3.connect(tmp_path / "run/calls.sqlite") as db:
        assert db.execute("SELECT COUNT(*) FROM calls WHERE stage != 'embed'").fetchone()[0] == 2 * before


async def test_batches_carry_the_settings(key, tmp_path, monkeypatch):
    monkeypatch.setattr("lf_longpo.models.batch_chat._QUIET", 0.1)
    monkeypatch.setattr("lf_longpo.models.batches._FIRST_LOOK", 0.05)
    monkeypatch.setenv("MY_SECRET", "s3cret-value")
    seen = []
    with BatchStub(judged) as stub:
        stub.refuse = lambda path: None
        rejects = stub._rejects
        stub._rejects = lambda request: seen.append(request.headers.get("X-Key")) or rejects(request)
        batched = {"batch": True, "max_concurrency": 1000, "system": SYSTEM, "extra_body": {"top_k": 20}}
        judge = batched | {"extra_headers": {"X-Key": "$MY_SECRET"}}
        result = await generate(a_judged_run(stub, tmp_path, judge))
        assert result.summary["failed"] == 0 and stub.batches
        rows = [line for batch in stub.batches.values() for line in stub.files[batch["input_file_id"]].splitlines()]
    for row in map(json.loads, rows):
        assert row["body"]["messages"][0] == {"role": "system", "content": SYSTEM} and row["body"]["top_k"] == 20
    assert "s3cret-value" in seen and "s3cret-value" not in "".join(rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extra_body": {"temperature": 1}}, r"extra_body\.temperature: set it in the sampling settings instead"),
        ({"extra_body": {"max_completion_tokens": 9}}, r"extra_body\.max_completion_tokens: set max_new_tokens"),
        ({"extra_body": {"messages": []}}, r"extra_body\.messages: set system instead"),
        ({"extra_body": {"model": "x"}}, r"extra_body\.model: set model instead"),
        ({"extra_body": {"x": float("nan")}}, r"extra_body cannot be sent as JSON"),
        ({"extra_body": {"stream": True}}, r"extra_body\.stream: replies are read as a whole"),
        ({"extra_body": {"chat_template_kwargs": "x"}}, r"extra_body\.chat_template_kwargs is not a mapping"),
        ({"extra_body": {"chat_template_kwargs": {"tokenize": 1}}}, r"chat_template_kwargs\.tokenize: every request"),
        ({"backend": "transformers", "extra_body": {"top_k": 1}}, r"extra_body\.top_k: backend transformers has no"),
        ({"backend": "vllm", "extra_body": {"topk": 1}}, r"extra_body\.topk: backend vllm has no such parameter"),
        ({"backend": "vllm", "extra_headers": {"X-A": "b"}}, r"extra_headers needs backend: openai"),
        ({"backend": "vllm", "continues_replies": True}, r"continues_replies needs backend: openai"),
        ({"extra_headers": {"X A": "b"}}, r"extra_headers: 'X A' is not a header's name"),
        ({"provider": "azure"}, r"provider: azure needs the address of your resource; set base_url"),
        ({"api_version": "2024-10-21"}, r"api_version needs base_url"),
        ({"provider": "openrouter", "batch": True}, r"batch needs one server"),
    ],
)
def test_settings_that_cannot_be_sent_are_refused_with_the_fix(settings, message):
    with pytest.raises(ValidationError, match=message):
        ChatConfig(model="m", **settings)


def test_vllm_takes_its_own_sampling_parameters():
    body = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 20, "min_p": 0.1, "stop": ["\n\n"]}
    assert ChatConfig(backend="vllm", model="m", extra_body=body).template_arguments == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("value", "message"), [(None, r"extra_headers\.X-Key: the environment variable MY_SECRET is not set; set it"),
                           ("abcd\nefgh", r"extra_headers\.X-Key: '\$MY_SECRET' holds a character")]
)  # fmt: skip
def test_a_variable_that_cannot_be_sent_is_reported_without_its_value(server, monkeypatch, value, message):
    monkeypatch.delenv("MY_SECRET", raising=False)
    if value:
        monkeypatch.setenv("MY_SECRET", value)
    with pytest.raises(UserError, match=message) as caught:
        OpenAIChat(policy_of(server, extra_headers={"X-Key": "$MY_SECRET"}))
    assert "abcd" not in str(caught.value)


async def test_a_server_that_quotes_a_header_is_quoted_without_its_value(server, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "s3cret-value")
    error = {"error": {"message": "no access for s3cret-value"}}
    server.fail = lambda body: web.json_response(error, status=403)
    chat = OpenAIChat(policy_of(server, extra_headers={"X-Key": "$MY_SECRET"}))
    with pytest.raises(CallFailed, match=r"no access for \$MY_SECRET"):
        await chat.complete(REQUEST)
    await chat.close()


def test_a_prompt_is_counted_with_the_system_prompt_and_the_templates_arguments(tokenizer):
    plain, asked = ChatConfig(model="m"), ChatConfig(model="m", system=SYSTEM)
    assert chat_ids("Hello", tokenizer) == chat_ids("Hello", tokenizer, plain)
    text = tokenizer.decode(chat_ids("Hello", tokenizer, asked))
    assert text.index(SYSTEM) < text.index("Hello") and chat_tokens("Hello", tokenizer, asked) == len(
        chat_ids("Hello", tokenizer, asked)
    )


async def test_a_long_prompt_is_cut_so_that_the_system_prompt_fits(server, tmp_path, tokenizer):
    system = "word " * 400
    longmab = {"chunk_size": 80, "rounds": 6, "top_k": 2, "sampling": {"max_new_tokens": 64}}
    sections = {"longmab": longmab, "pairs": {"template": "smollm2", "cutoff_len": 1024}}
    config = a_run(server, tmp_path, sections, system=system, context_window=1024)
    server.count_tokens = lambda text: len(tokenizer.tokenize(text))
    result = await generate(config)
    assert result.summary["failed"] == 0
    longest = max(
        len(tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True)["input_ids"])
        for body in server.bodies
    )
    assert 1024 - 64 - 20 < longest <= 1024 - 64


def test_a_template_without_a_system_prompt_is_an_error_that_says_so(models, tmp_path):
    from transformers import AutoTokenizer

    folder = tmp_path / "model"
    tokenizer = AutoTokenizer.from_pretrained(models("qwen2", small_tokenizer=True))
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ messages[0].content }}{% if brief %} Be brief.{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    settings = {"backend": "transformers", "model": str(folder)}
    with pytest.raises(UserError, match=r"cannot render a request \(System role not supported\); remove system"):
        load_chat_tokenizer(ChatConfig(**settings, system=SYSTEM))
    brief = ChatConfig(**settings, extra_body={"chat_template_kwargs": {"brief": True}})
    assert len(chat_ids("a", load_chat_tokenizer(brief), brief)) > len(chat_ids("a", load_chat_tokenizer(brief)))


@pytest.mark.slow
async def test_training_reads_the_system_prompt_of_the_policy(server, tmp_path):
    """LLaMA-Factory's own loader; the longest pair is cut to the cutoff length with the system prompt in it."""
    from test_llamafactory import loaded_by_llamafactory

    from lf_longpo.plugin.encoding import TemplateEncoder

    config = a_run(server, tmp_path, {"pairs": {"template": "smollm2", "cutoff_len": 300}}, system=SYSTEM)
    result = await generate(config)
    entry = load_dataset_info(tmp_path / "data")["codes"]
    assert entry["columns"]["system"] == "system"
    pairs = [json.loads(line) for line in (tmp_path / "data/codes.jsonl").read_text().splitlines()]
    assert {pair["system"] for pair in pairs} == {SYSTEM} and len(pairs) == result.summary["pairs"] > 0
    tokenizer, examples = loaded_by_llamafactory(tmp_path / "data", "smollm2", 300)
    encoder = TemplateEncoder("smollm2", "smollm2-135m", 300, system=SYSTEM)
    for pair, example in zip(pairs, examples, strict=True):
        ids = example["chosen_input_ids"]
        assert SYSTEM in tokenizer.decode(ids) and pair["input"] in tokenizer.decode(ids)
        assert len(ids) == sum(encoder.length(pair["prompt"], pair["chosen"])) <= 300
    longest = max(len(example[f"{side}_input_ids"]) for example in examples for side in ("chosen", "rejected"))
    assert longest > 300 - 12


@pytest.mark.parametrize(
    ("provider", "settings"),
    [
        ("azure", {}),
        ("azure before v1", {"api_version": "2024-10-21"}),
        ("openrouter", {"extra_headers": {"HTTP-Referer": "https://example.org", "X-Title": "longpo"}}),
    ],
)
async def test_a_run_at_a_provider(key, tmp_path, provider, settings):
    with ServerStub(**SERVERS[provider], needs=settings.get("extra_headers")) as stub:
        longmab = {"chunk_size": 80, "rounds": 6, "top_k": 2, "init": "random"}
        config = a_run(stub, tmp_path, {"longmab": longmab}, provider=provider.split()[0], **settings)
        result = await generate(config)
    assert result.summary["failed"] == 0 and result.summary["pairs"]


async def test_a_wrong_api_version_is_an_error_that_names_the_address(key):
    with ServerStub(**SERVERS["azure before v1"]) as stub:
        chat = OpenAIChat(policy_of(stub, api_version="2023-01-01"))
        with pytest.raises(UserError, match=r"no such model or address \(404\): .*Resource not found"):
            await chat.complete(REQUEST)
        await chat.close()


@pytest.mark.parametrize(
    ("provider", "key_variable", "host"),
    [
        ("azure", "AZURE_OPENAI_API_KEY", "https://mine.openai.azure.com/openai/v1"),
        ("openrouter", "OPENROUTER_API_KEY", None),
    ],
)
def test_a_provider_has_its_key_and_needs_it(monkeypatch, provider, key_variable, host):
    monkeypatch.delenv(key_variable, raising=False)
    config = ChatConfig(provider=provider, model="m", base_url=host)
    assert config.api_key_env == key_variable and config.continues_replies is False
    assert host or config.base_url == "https://openrouter.ai/api/v1"
    with pytest.raises(UserError, match=f"{key_variable} is not set"):
        OpenAIChat(config)
    if host:
        assert EmbedderConfig(provider="azure", model="m", base_url=host).api_key_env == key_variable


async def test_openrouter_reports_the_window(key):
    with ServerStub(**SERVERS["openrouter"]) as stub:
        stub.models_text = json.dumps({"data": [{"id": MODEL, "context_length": 4096}]})
        chat = OpenAIChat(policy_of(stub))
        assert await chat.start() == 4096
        await chat.close()


@pytest.mark.parametrize("named", ["field", "words"])
async def test_a_judge_that_refuses_probabilities_ends_the_run_at_its_first_verdict(key, tmp_path, named):
    with ServerStub(judged, refuses=("logprobs",)) as stub:
        if named == "field":
            error = {"message": "Not with this model.", "param": "logprobs", "code": "unsupported_parameter"}
            stub.fail = lambda body: web.json_response({"error": error}, status=400) if "logprobs" in body else None
        with pytest.raises(
            UserError, match=r"reports no token probabilities \(.*\), .*; set longreward.rating: parsed"
        ):
            await generate(a_judged_run(stub, tmp_path, {}, rating="expected"))
        # The next call in line has been made when the error arrives.
        assert sum("logprobs" in body for body in stub.bodies) <= 2


async def test_a_judge_that_refuses_begun_replies_ends_the_run_with_the_setting(key, tmp_path):
    with ServerStub(judged, refuses=("continue_final_message",)) as stub:
        weights = {"9": 0.5, "Fully": 0.5}
        stub.weights = lambda prompt, start: weights
        config = a_judged_run(stub, tmp_path, {}, rating="expected")
        with pytest.raises(UserError, match=r"does not continue a reply .*; set continues_replies: false"):
            await generate(config)
        refused = sum("continue_final_message" in body for body in stub.bodies)
        assert refused <= 2
        # The setting may change when the run resumes.
        again = a_judged_run(stub, tmp_path, {"continues_replies": False}, rating="expected")
        result = await generate(again)
        assert result.summary["failed"] == 0
        assert sum("continue_final_message" in body for body in stub.bodies) == refused


async def test_a_server_that_continues_replies_without_probabilities_is_found_at_the_first(key, tmp_path):
    with ServerStub(judged) as stub:
        stub.answer = lambda prompt, seed: judged(prompt, seed) if "[[" not in prompt[-40:] else "9"
        stub.weights = lambda prompt, start: {"9": 1.0}
        stub._logprobs = lambda *args: []
        config = a_judged_run(stub, tmp_path, {}, rating="expected")
        with pytest.raises(UserError, match=r"reports no token probabilities, .*; set longreward.rating: parsed"):
            await generate(config)


def test_a_judge_without_probabilities_is_refused_before_any_call(monkeypatch):
    monkeypatch.setenv("ZHIPUAI_API_KEY", "none")
    judge = ChatConfig(provider="zhipu", model="m")
    assert judge.token_probabilities is False
    with pytest.raises(UserError, match=r"reports no token probabilities, .*; set longreward.rating: parsed"):
        LongRewardJudge(judge, tokenizer="smollm2-135m", longreward=JudgingConfig(rating="expected"))


def test_overrides_reach_into_the_parameters(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "method: longmab\ninput: q.jsonl\noutput_dir: r\ndataset_name: d\npolicy: {model: m}\n"
        "pairs: {template: t, cutoff_len: 9}\n"
    )
    config = load_config(GenerateConfig, str(path), ["policy.extra_body.chat_template_kwargs.enable_thinking=false"])
    assert config.policy.extra_body == {"chat_template_kwargs": {"enable_thinking": False}}


async def test_azures_key_is_in_its_header_and_the_model_is_a_deployment(key):
    with ServerStub(**SERVERS["azure before v1"]) as stub:
        stub.models_text = json.dumps({"data": [{"id": "gpt-4o"}]})  # Azure lists models, not deployments
        chat = OpenAIChat(policy_of(stub, provider="azure", api_version="2024-10-21", model="my-deployment"))
        await chat.start()
        await chat.complete(REQUEST)
        await chat.close()
        assert all(sent["api-key"] == KEY for sent in stub.headers)
