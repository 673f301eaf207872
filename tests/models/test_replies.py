"""Replies of servers as they come: cut off, empty, broken, refused, in parts, with halves of letters."""

import json
import sqlite3
from contextlib import closing

import pytest
from aiohttp import web
from conftest import code_questions, judged, run_settings, write_jsonl
from stub import MODEL, deterministic_answer

from lf_longpo.cli.generation_output import print_generation
from lf_longpo.config import ChatConfig, EmbedderConfig, GenerateConfig, SamplingConfig
from lf_longpo.errors import CallFailed, Refused, TryAgain, UserError
from lf_longpo.export.run_responses import answered_questions
from lf_longpo.generation.generate import generate
from lf_longpo.models.cache import CallCache
from lf_longpo.models.chat import ChatRequest
from lf_longpo.models.embedders import make_embedder
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.openai_chat import OpenAIChat
from lf_longpo.models.openai_wire import read_reply
from lf_longpo.run_folder.contents import RunFolder

REQUEST = ChatRequest("How?", SamplingConfig(), 1)
WEIGHING = ChatRequest("How?", SamplingConfig(), 1, "[[", "[[")


def reply(content="Fine.", reason="stop", usage=(9, 3), **choice) -> dict:
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason} | choice], "usage": usage}


@pytest.mark.parametrize("content", ["", " \n", None])
@pytest.mark.parametrize(("reason", "kind"), [("stop", TryAgain), ("length", CallFailed), ("max_tokens", CallFailed)])
def test_a_reply_without_text_is_none(content, reason, kind):
    with pytest.raises(CallFailed, match=f"holds no text .finish_reason {reason}") as caught:
        read_reply(reply(content, reason), REQUEST)
    assert type(caught.value) is kind and caught.value.used == (9, 3)


def test_a_reply_that_was_begun_may_end_at_once():
    """The judge asks again then, at another temperature."""
    tokens = [{"token": "", "logprob": 0.0, "top_logprobs": [{"token": "8", "logprob": 0.0}]}]
    completion = read_reply(reply("", "length", logprobs={"content": tokens}), WEIGHING)
    assert (completion.text, completion.weights) == ("", None)


@pytest.mark.parametrize("reason", ["error", "abort", "network_error", "insufficient_system_resource"])
def test_a_reply_that_broke_off_is_none(reason):
    with pytest.raises(TryAgain, match=f"an error of the server ended the reply .finish_reason {reason}"):
        read_reply(reply("Half of", reason), REQUEST)


@pytest.mark.parametrize("reason", ["length", "max_tokens", "model_length"])
def test_servers_have_several_words_for_cut_off(reason):
    assert read_reply(reply("Half of", reason), REQUEST).finish_reason == "length"


def test_of_content_in_parts_the_text_counts():
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    parts = [thought, {"type": "text", "text": "Answer: "}, {"type": "text", "text": "blue"}]
    completion = read_reply(reply(parts), REQUEST)
    assert (completion.text, completion.thought) == ("Answer: blue", "Hm.")
    with pytest.raises(TryAgain, match="holds no text"):
        read_reply(reply([{"type": "image_url", "image_url": {}}]), REQUEST)


def thoughtful(content, reason: str, field: str, thought: str) -> dict:
    given = reply(content, reason)
    given["choices"][0]["message"][field] = thought
    return given


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_thought_in_a_field_of_its_own_is_kept_apart(field):
    completion = read_reply(thoughtful("Answer: 1932", "stop", field, "It may be 1931.\n"), REQUEST)
    assert (completion.text, completion.thought, completion.unfinished_thought) == (
        "Answer: 1932",
        "It may be 1931.",
        False,
    )


@pytest.mark.parametrize(
    "content", [None, "", [{"type": "thinking", "thinking": "Hm."}], [{"type": "reasoning", "reasoning": "Hm."}]]
)
@pytest.mark.parametrize("reason", ["length", "stop"])
def test_a_thought_without_an_answer_is_no_error(content, reason):
    given = reply(content, reason) if content else thoughtful(content, reason, "reasoning", "Hm.")
    completion = read_reply(given, REQUEST)
    assert (completion.text, completion.thought) == ("", "Hm.")
    assert completion.unfinished_thought and completion.truncated


def test_halves_of_letters_are_replaced_and_two_halves_are_one_letter():
    assert read_reply(reply("Nice \ud83d."), REQUEST).text == "Nice \ufffd."
    assert read_reply(reply([{"type": "text", "text": half} for half in "\ud83d\ude00"]), REQUEST).text == "\U0001f600"
    with pytest.raises(CallFailed, match="the model refused: no \ufffd") as caught:
        read_reply({"choices": [{"message": {"refusal": "no \ud83d"}}]}, REQUEST)
    str(caught.value).encode()


@pytest.mark.parametrize("logprob", [float("nan"), float("-inf"), -0.1, 5.0, 1e400])
def test_probabilities_are_probabilities(logprob):
    likeliest = [{"token": "8", "logprob": logprob}]
    tokens = [{"token": "8", "logprob": 0.0, "top_logprobs": likeliest}]
    weights = read_reply(reply("8", logprobs={"content": tokens}), WEIGHING).weights
    assert 0.0 <= weights["8"] <= 1.0


def test_numbers_of_tokens_that_are_none_count_as_untold():
    for told in (None, "12", -1, 10**30, 1.5, [], True):
        assert read_reply(reply(usage=(told, told)), REQUEST).completion_tokens in (0, 1)


def chat(stub) -> OpenAIChat:
    return OpenAIChat(ChatConfig(model=MODEL, base_url=stub.base_url, api_key_env="STUB_KEY"))


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ({"error": {"message": "Provider returned error", "code": 502}}, TryAgain, "Provider returned error"),
        ({"error": "model overloaded"}, TryAgain, "answered 200 with an error: model overloaded"),
        ({"error": {"message": "slow down", "code": 429}}, TryAgain, "slow down"),
        ({"error": {"message": "no \ud83d", "code": "content_filter"}}, CallFailed, "content policy.: no \ufffd"),
        ({"error": {"message": "bad request", "code": 400}}, Refused, "bad request"),
        ({"error": {"message": "empty", "code": "insufficient_quota"}}, UserError, "no credit left: empty"),
        ({"object": "error", "message": "too long", "code": 400}, Refused, "too long"),
        (reply("Half of", "error", error={"message": "upstream died", "code": 502}), TryAgain, "upstream died"),
    ],
)
async def test_an_error_with_status_200_is_that_error(stub, body, kind, words):
    stub.fail = lambda _: web.json_response(body)
    model = chat(stub)
    with pytest.raises(kind, match=words) as caught:
        await model.complete(REQUEST)
    await model.close()
    assert type(caught.value) is kind and stub.base_url in str(caught.value)


def a_run(stub, tmp_path, questions=3, **changes) -> GenerateConfig:
    data = run_settings(stub, tmp_path, write_jsonl(tmp_path / "q.jsonl", code_questions(questions)))
    data["policy"]["max_retries"] = 0
    if changes.get("method") == "longreward":
        del data["longmab"]
    for name, value in changes.items():
        data[name] = data.get(name, {}) | value if isinstance(value, dict) else value
    return GenerateConfig.model_validate(data)


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_halves_of_letters_in_replies_and_refusals_end_no_run(stub, tmp_path):
    stub.answer = lambda prompt, seed: deterministic_answer(prompt, seed) + " \ud83d"
    refusal = {"error": {"message": "policy \udc00", "code": "content_filter"}}
    stub.fail = lambda body: (
        web.json_response(refusal, status=400) if "place1?" in body["messages"][0]["content"] else None
    )
    result = await generate(a_run(stub, tmp_path, questions=6))
    pairs = rows(tmp_path / "data/codes.jsonl")
    assert result.summary["failed"] == 1 and all(row["chosen"].endswith(" \ufffd") for row in pairs) and pairs
    (failure,) = rows(tmp_path / "run/failures.jsonl")
    assert failure["id"] == "q1" and failure["reason"].endswith("policy \ufffd")


@pytest.mark.slow
async def test_a_cache_that_kept_half_a_letter_is_read_and_asked_no_more(stub, tmp_path):
    """An earlier version kept replies as they came, and every start failed at them again."""
    config = a_run(stub, tmp_path)
    await generate(config)
    with closing(sqlite3.connect(tmp_path / "run/calls.sqlite")) as db, db:
        db.execute("UPDATE calls SET result = replace(result, 'Answer: ', 'Answer: \\ud83d')")
    for name in ("probes.jsonl", "rollouts.jsonl", "pairs.jsonl"):
        (tmp_path / "run" / name).unlink()
    made = stub.chats
    result = await generate(config)
    assert (stub.chats, result.summary["failed"]) == (made, 0)
    assert any("\ufffd" in row["output"] for row in rows(tmp_path / "run/rollouts.jsonl"))


def cut_off(stub, share):
    """Lets the replies whose seed is in the share end at their most tokens."""
    plain = stub.reply_to

    def reply_to(body: dict) -> dict:
        made = plain(body)
        if share(body):
            made["choices"][0] |= {"finish_reason": "length"}
        return made

    stub.reply_to = reply_to


@pytest.mark.slow
async def test_outputs_that_were_cut_off_stay_out_of_pairs(stub, tmp_path):
    cut_off(stub, lambda body: body["seed"] % 3 == 0)
    result = await generate(a_run(stub, tmp_path, questions=6, longmab={"rounds": 12}))
    truncated = {(row["id"], row["round"]) for row in rows(tmp_path / "run/rollouts.jsonl") if row["truncated"]}
    assert result.summary["calls"]["rollout"]["truncated"] == len(truncated) > 10
    pairs = rows(tmp_path / "data/codes.jsonl")
    sides = {(pair["id"], pair[f"{side}_index"]) for pair in pairs for side in ("chosen", "rejected")}
    assert len(pairs) > 3 and not sides & truncated
    # Allowed, they take part, without a call.
    with closing(RunFolder(tmp_path / "run")) as run:
        kept = {(one.id, response.index) for one in answered_questions(run) for response in one.responses}
        assert not kept & truncated
    made = stub.chats
    await generate(a_run(stub, tmp_path, questions=6, longmab={"rounds": 12}, pairs={"allow_truncated": True}))
    pairs = rows(tmp_path / "data/codes.jsonl")
    sides = {(pair["id"], pair[f"{side}_index"]) for pair in pairs for side in ("chosen", "rejected")}
    assert stub.chats == made and sides & truncated


@pytest.mark.slow
async def test_responses_that_were_cut_off_are_scored_and_stay_out_of_pairs(stub, tmp_path):
    stub.answer = judged
    cut_off(stub, lambda body: "--- The case" not in body["messages"][0]["content"] and body["seed"] % 2)
    changes = {"method": "longreward", "longreward": {"num_samples": 8, "min_responses": 2, "chunk_size": 400}}
    config = a_run(
        stub, tmp_path, judge={"model": MODEL, "base_url": stub.base_url, "api_key_env": "STUB_KEY"}, **changes
    )
    result = await generate(config)
    scored = rows(tmp_path / "run/scored_responses.jsonl")
    truncated = {row["idx"] for row in scored if row.get("truncated")}
    assert len(scored) == 24 and len(truncated) == result.summary["calls"]["sample"]["truncated"] > 5
    assert truncated == {row["idx"] for row in rows(tmp_path / "run/sampled_responses.jsonl") if row.get("truncated")}
    pairs = rows(tmp_path / "data/codes.jsonl")
    sides = {f"{pair['id']}-{pair[f'{side}_index']}" for pair in pairs for side in ("chosen", "rejected")}
    assert pairs and not sides & truncated
    with closing(RunFolder(tmp_path / "run")) as run:
        assert sum(len(one.responses) for one in answered_questions(run)) == 24 - len(truncated)
    # Handed on to another run, they are still known as cut off.
    (given := tmp_path / "given").mkdir()
    responses = str(tmp_path / "run/sampled_responses.jsonl")
    again = await generate(config.model_copy(update={"responses": responses, "output_dir": given}))
    assert again.summary["pairs"] == len(pairs)
    assert {row["idx"] for row in rows(given / "scored_responses.jsonl") if row.get("truncated")} == truncated


async def test_a_run_whose_outputs_are_all_cut_off_makes_no_pair_and_says_what_to_do(stub, tmp_path, capsys):
    cut_off(stub, lambda body: True)
    config = a_run(stub, tmp_path)
    result = await generate(config)
    assert (result.exit_code, result.summary["pairs"], result.summary["cut_off"]) == (1, 0, 3)
    assert (result.summary["calls"]["rollout"]["truncated"], result.summary["calls"]["embed"]["truncated"]) == (18, 0)
    print_generation(config, result.summary, "longpo generate c.yaml")
    advice = (
        "rollout: 18 of 18 replies were cut off at their token limit. Raise longmab.sampling.max_new_tokens and set "
        "another output_dir, or set pairs.allow_truncated=true; without it, the pairs contain no truncated replies."
    )
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert advice in told and "3 too few complete responses" in told
    page = (tmp_path / "run/report.html").read_text()
    assert advice in page and "truncated replies<" in page and not (tmp_path / "data").exists()


async def test_a_cache_of_an_earlier_version_tells_what_was_cut_off(tmp_path):
    with closing(sqlite3.connect(tmp_path / "calls.sqlite")) as db, db:
        db.execute(
            "CREATE TABLE calls (stage TEXT, question TEXT, round INTEGER, request TEXT, result TEXT, prompt_tokens"
            " INTEGER, completion_tokens INTEGER, PRIMARY KEY (stage, question, round, request)) WITHOUT ROWID"
        )
        for round, (text, tokens, reason) in enumerate(
            (("Half of", 5, "length"), ('Say "finish_reason": "length"', 5, "stop"), ("8", 1, "length"))
        ):
            result = {"text": text, "prompt_tokens": 9, "completion_tokens": tokens, "finish_reason": reason}
            db.execute("INSERT INTO calls VALUES ('s', 'q', ?, 'r', ?, 9, ?)", (round, json.dumps(result), tokens))
    cache = CallCache(tmp_path / "calls.sqlite")
    cache.open()
    assert cache.totals()["s"].truncated == 1
    cache.close()


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        ([[0.0, 0.0], [1.0, 0.0]], "vectors of zeros"),
        ([[float("nan"), 0.0], [1.0, 0.0]], "not finite"),
        ([[1e400, 0.0], [1.0, 0.0]], "not finite"),
        ([[1e300, 0.0], [1.0, 0.0]], "not finite"),
        ([[1.0, 0.0]], r"of shape \(1, 2\) for 2 texts"),
        ([[1.0, 0.0]] * 3, r"of shape \(3, 2\) for 2 texts"),
        ([[1.0], [1.0, 0.0]], "cannot be read"),
        ([[1.0, None], [1.0, 0.0]], "not finite"),
        ([["x", "y"], [1.0, 0.0]], "cannot be read"),
        ([[10**400, 0.0], [1.0, 0.0]], "cannot be read"),
        ([[], []], r"of shape \(2, 0\)"),
        ([1.0, 2.0], r"of shape \(2,\)"),
        ([[1.0, 0.0, 0.0]] * 2, "of 3 numbers after vectors of 2"),
    ],
)
async def test_vectors_that_are_none_are_an_error_that_names_the_server(stub, vectors, words):
    sent = [[3.0, 4.0]]

    def answer(body: dict) -> web.Response:
        data = [{"index": index, "embedding": vector} for index, vector in enumerate(sent)]
        return web.Response(text=json.dumps({"data": data}), content_type="application/json")

    stub.fail_embedding = answer
    embedder = an_embedder(stub)
    await embedder.start()
    sent[:] = vectors
    with pytest.raises(CallFailed, match=words) as caught:
        await embedder.embed("q", ["a", "b"])
    assert stub.base_url in str(caught.value)
    # Nothing of it is kept.
    sent[:] = [[3.0, 4.0], [0.0, 2.0]]
    assert (await embedder.embed("q", ["a", "b"])).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 1.0]]
    await embedder.close()


async def test_vectors_of_zeros_that_an_earlier_version_kept_are_asked_for_again(stub):
    embedder = an_embedder(stub)
    before = await embedder.embed("q", ["a"])
    embedder._cache._db.execute('UPDATE calls SET result = \'{"vectors": [[0.0, 0.0]], "prompt_tokens": 1}\'')
    assert (await embedder.embed("q", ["a"])).tolist() == before.tolist() and stub.embedded_texts == 2
    await embedder.close()


async def test_an_embedding_server_that_sends_an_error_with_status_200_is_quoted(stub):
    stub.fail_embedding = lambda body: web.json_response({"error": {"message": "model is loading"}})
    embedder = an_embedder(stub)
    with pytest.raises(UserError, match="answered 200 with an error: model is loading"):
        await embedder.start()
    await embedder.close()


def an_embedder(stub):
    cache = CallCache(None)
    cache.open()
    config = EmbedderConfig(backend="openai", model="e", base_url=stub.base_url, api_key_env="STUB_KEY")
    return make_embedder(config, cache, Ledger())


@pytest.mark.parametrize(
    ("models", "window"),
    [
        ([{"id": MODEL, "max_model_len": None, "parent": "base"}, {"id": "base", "max_model_len": 512}], 512),
        ([{"id": MODEL, "max_model_len": 1024, "parent": "base"}, {"id": "base", "max_model_len": 512}], 1024),
        ([{"id": MODEL, "parent": "gone"}], None),
        ([{"id": MODEL, "parent": MODEL}], None),
        ([{"id": MODEL, "max_model_len": "512"}], None),
    ],
)
async def test_the_window_of_an_adapter_is_that_of_its_base_model(stub, models, window):
    """vLLM tells no window for an adapter; without one, prompts would be too long and fail one by one."""
    stub.models_text = json.dumps({"object": "list", "data": models})
    model = chat(stub)
    assert await model.start() == window
    await model.close()


async def test_an_embedder_in_process_halves_its_batches_where_memory_runs_out(key):
    sizes = []

    class Model:
        def encode(self, texts, batch_size, **_):
            sizes.append(batch_size)
            if batch_size > 8:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            return [[1.0, 0.0]] * len(texts)

    embedder = make_embedder(EmbedderConfig(), CallCache(None), Ledger())
    embedder._model = Model()
    for _ in range(2):
        assert (await embedder.embed("q", ["a", "b"])).shape == (2, 2)
    assert sizes == [32, 16, 8, 8]
    embedder._model.encode = lambda texts, **_: [[0.0, 0.0]] * len(texts)
    with pytest.raises(CallFailed, match="the embedder minilm sent vectors of zeros"):
        await embedder.embed("q", ["a"])


async def test_a_list_of_models_that_is_an_error_with_status_200_is_quoted(stub):
    stub.models_text = json.dumps({"error": {"message": "no such tenant", "code": 400}})
    model = chat(stub)
    with pytest.raises(UserError, match="answered 200 with an error: no such tenant"):
        await model.start()
    await model.close()


@pytest.mark.slow
async def test_empty_outputs_that_an_earlier_version_kept_stay_out_of_pairs(stub, tmp_path):
    """Its journals do not tell what was cut off; their rows count all the same."""
    config = a_run(stub, tmp_path, questions=6)
    await generate(config)
    journal, made = tmp_path / "run/rollouts.jsonl", stub.chats
    old = [{name: value for name, value in row.items() if name != "truncated"} for row in rows(journal)]
    write_jsonl(journal, [row | {"output": "" if row["output"] == "I cannot tell." else row["output"]} for row in old])
    (tmp_path / "run/pairs.jsonl").unlink()
    result = await generate(config)
    pairs = rows(tmp_path / "data/codes.jsonl")
    assert stub.chats == made and result.summary["failed"] == 0
    assert pairs and all(pair["chosen"] and pair["rejected"] for pair in pairs)
    assert sum(not row["output"] for row in rows(journal)) > 3
