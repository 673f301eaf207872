"""Models that think before they answer: scores, verdicts and pairs see the answer only."""

import json
from contextlib import asynccontextmanager
from copy import deepcopy

import pytest
from conftest import code_questions, run_settings, write_jsonl
from stub import MODEL, Stub

from lf_longpo.config import ChatConfig, GenerateConfig, SamplingConfig, VerdictConfig
from lf_longpo.errors import UserError
from lf_longpo.generation.generate import generate
from lf_longpo.judging.verdict_requests import Judge, JudgeRequest, Unreadable
from lf_longpo.longreward.parsing import rating_in_range
from lf_longpo.models.cache import CallCache
from lf_longpo.models.calls import Call, Calls
from lf_longpo.models.chat import ChatRequest
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.openai_chat import OpenAIChat
from lf_longpo.models.thoughts import has_special_marks, opened_thought
from lf_longpo.models.tokenizers import chat_ids

CUT = "✂"  # at the end of a scripted reply: it was cut off
THOUGHT = "It may be [[2]]. No relevant information? <statement>Draft.</statement> Answer: draft"


class Thinker(Stub):
    """A server that can cut replies off, and that keeps the bodies of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[dict] = []

    def reply_to(self, body: dict) -> dict:
        self.bodies.append(body)
        reply = super().reply_to(body)
        [choice] = reply["choices"]
        if choice["message"]["content"].endswith(CUT):
            choice["finish_reason"] = "length"
            choice["message"]["content"] = choice["message"]["content"].removesuffix(CUT)
        return reply


@pytest.fixture
def thinker(key):
    with Thinker() as server:
        yield server


def config_of(server: Stub, **changes) -> ChatConfig:
    return ChatConfig(model=MODEL, base_url=server.base_url, api_key_env="STUB_KEY", max_retries=0, **changes)


@asynccontextmanager
async def calls_of(server: Stub, tokenizer, cache: CallCache | None = None, **changes):
    config, cache = config_of(server, **changes), cache or CallCache(None)
    cache.open()
    calls = Calls(OpenAIChat(config), config, tokenizer, cache, Ledger(), 1)
    yield calls
    await calls.close()


def call(index: int = 0, tokens: int = 64) -> Call:
    return Call(
        "stage", "q", index, SamplingConfig(max_new_tokens=tokens), lambda context: f"{context} {index}", "Why?"
    )


REQUEST = JudgeRequest("helpfulness", "q", lambda context: "Rate it.", 64, "material")
RATINGS = {str(rating): float(rating) for rating in range(11)}


async def test_a_tentative_rating_in_an_unfinished_thought_is_no_verdict(thinker, tokenizer):
    replies = iter([f"<think>Perhaps [[2]], but{CUT}", "<think>[[2]]?</think>\nGood.\n[[9]]"])
    thinker.answer = lambda prompt, seed: next(replies)
    async with calls_of(thinker, tokenizer) as calls:
        judge = Judge(VerdictConfig(rating="parsed"), config_of(thinker), calls, "longreward")
        assert await judge.verdict(REQUEST, RATINGS, rating_in_range) == {"analysis": "Good.\n[[9]]", "score": 9.0}


async def test_a_judge_that_only_thinks_gives_no_verdict_and_the_error_names_the_fix(thinker, tokenizer):
    thinker.answer = lambda prompt, seed: f"<think>Perhaps [[2]], but{CUT}"
    async with calls_of(thinker, tokenizer) as calls:
        judge = Judge(VerdictConfig(rating="parsed"), config_of(thinker), calls, "longreward")
        with pytest.raises(Unreadable, match=r"5 are thoughts without an answer: raise judge\.") as caught:
            await judge.verdict(REQUEST, RATINGS, rating_in_range)
    assert caught.value.last_words == "Perhaps [[2]], but"


async def test_token_probabilities_of_a_thinking_judge_are_refused(thinker, tokenizer):
    thinker.answer = lambda prompt, seed: "<think>Hm.</think>Good.\n[[9]]"
    async with calls_of(thinker, tokenizer) as calls:
        judge = Judge(VerdictConfig(rating="expected"), config_of(thinker), calls, "longreward")
        with pytest.raises(UserError, match=r"the judge thinks before it answers.*set longreward.rating: parsed"):
            await judge.verdict(REQUEST, RATINGS, rating_in_range)


async def test_a_template_that_opens_the_thought_is_learnt_from_a_reply(thinker, tokenizer):
    """Later replies without any mark that were cut off are unfinished thoughts; complete ones are answers."""
    replies = iter(["1931?</think>\n1932", f"Let me see: 1931{CUT}", "1932"])
    thinker.answer = lambda prompt, seed: next(replies)
    async with calls_of(thinker, tokenizer) as calls:
        first, second, third = [await calls.complete(call(index)) for index in range(3)]
    assert (first.text, first.thought) == ("1932", "1931?")
    assert (second.text, second.thought, second.unfinished_thought) == ("", "Let me see: 1931", True)
    assert (third.text, third.thought) == ("1932", "")


async def test_the_cache_keeps_both_parts_and_old_rows_are_separated_when_they_are_read(thinker, tokenizer, tmp_path):
    thinker.answer = lambda prompt, seed: "<think>1931?</think>About </think> tags."
    async with calls_of(thinker, tokenizer, CallCache(tmp_path / "calls.sqlite")) as calls:
        completion = await calls.complete(call())
    cache = CallCache(tmp_path / "calls.sqlite")
    async with calls_of(thinker, tokenizer, cache) as calls:
        assert await calls.complete(call()) == completion
        db = cache._db
        [stored] = [json.loads(row[0]) for row in db.execute("SELECT result FROM calls")]
        assert (stored["text"], stored["thought"]) == ("About </think> tags.", "1931?")
        del stored["thought"]
        stored["text"] = "<think>1931?</think>1932"
        db.execute("UPDATE calls SET result = ?", (json.dumps(stored),))
        old = await calls.complete(call())
    assert (old.text, old.thought, thinker.chats) == ("1932", "1931?", 1)


async def test_thinking_tokens_are_added_to_the_limit_and_to_the_call_only_where_they_are_set(thinker, tokenizer):
    thinker.answer = lambda prompt, seed: "1932"
    cache = CallCache(None)
    async with calls_of(thinker, tokenizer, cache) as calls:
        await calls.complete(call())
        await calls.complete(call())
        config = config_of(thinker, thinking_tokens=1000)
        thinking = Calls(OpenAIChat(config), config, tokenizer, cache, Ledger(), 1)
        await thinking.complete(call())
        long = Call("stage", "long", 0, SamplingConfig(max_new_tokens=64), lambda text: text, "word " * 9000)
        await thinking.complete(long)
        await thinking.close()
    assert [body["max_tokens"] for body in thinker.bodies] == [64, 1064, 1064]
    prompt = thinker.bodies[-1]["messages"][0]["content"]
    assert 6000 < len(tokenizer.tokenize(prompt)) <= 8192 - 1064


def test_a_prompt_that_opens_the_thought_is_recognised_in_process(tokenizer):
    opening = deepcopy(tokenizer)
    opening.chat_template = "user: {{ messages[0].content }}\nassistant: <think>\n"
    request = ChatRequest("Why?", SamplingConfig(), 1)
    assert opened_thought(chat_ids("Why?", opening), request, opening) == "<think>"
    assert opened_thought(chat_ids("Why <think>?", tokenizer), request, tokenizer) == ""
    begun = ChatRequest("Why?", SamplingConfig(), 1, reply_start="So.\n[[")
    assert opened_thought(chat_ids("Why?", tokenizer, reply_start=begun.reply_start), begun, tokenizer) == ""
    with pytest.raises(UserError, match=r"begins each reply with a thought.*set rating: parsed"):
        opened_thought(chat_ids("Why?", opening, reply_start=begun.reply_start), begun, opening)


def test_marks_that_decoding_would_skip_are_known(tokenizer):
    magistral = deepcopy(tokenizer)
    magistral.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    assert has_special_marks(magistral) and not has_special_marks(tokenizer)


# Whole runs.


def thoughtful(answer, opening="<think>\n", closing="\n</think>\n\n"):
    return lambda prompt, seed: f"{opening}{THOUGHT}{closing}{answer(prompt, seed)}"


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def years(prompt: str, seed: int) -> str:
    if "Correct answer" in prompt:
        return "The text says so. The answer is 1932."
    return f"Answer: {1931 + seed % 2}"


def year_settings(server, folder, **changes) -> GenerateConfig:
    rows = [row | {"answer": "1932"} for row in code_questions(3)]
    data = run_settings(server, folder, write_jsonl(folder / "questions.jsonl", rows))
    return GenerateConfig.model_validate({**data, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("opening", ["<think>\n", ""])
async def test_rollouts_are_rewarded_by_their_answers(thinker, tmp_path, opening):
    thinker.answer = thoughtful(years, opening)
    result = await generate(year_settings(thinker, tmp_path))
    rollouts = lines(tmp_path / "run/rollouts.jsonl")
    assert {(row["output"], row["reward"]) for row in rollouts} == {("Answer: 1931", 0.0), ("Answer: 1932", 1.0)}
    assert {row["thought"] for row in rollouts} == {THOUGHT}
    pairs = lines(tmp_path / "run/pairs.jsonl")
    assert {(pair["chosen"], pair["rejected"]) for pair in pairs} == {("Answer: 1932", "Answer: 1931")}
    assert result.summary["unfinished_thoughts"] == 0


@pytest.mark.slow
async def test_thoughts_that_do_not_end_are_counted_and_in_no_pair(thinker, tmp_path):
    def answer(prompt: str, seed: int) -> str:
        if "Correct answer" not in prompt and seed % 3 == 0:
            return f"<think>Answer: 1932{CUT}"
        return thoughtful(years)(prompt, seed)

    thinker.answer = answer
    settings = year_settings(thinker, tmp_path)
    summary = (await generate(settings)).summary
    rollouts = lines(tmp_path / "run/rollouts.jsonl")
    unfinished = [row for row in rollouts if not row["output"]]
    assert unfinished and summary["unfinished_thoughts"] == len(unfinished)
    assert all(row["reward"] == 0 and row["truncated"] and row["thought"] == "Answer: 1932" for row in unfinished)
    rounds = {(row["id"], row["round"]) for row in unfinished}
    pairs = lines(tmp_path / "run/pairs.jsonl")
    assert pairs and not {(pair["id"], pair[f"{side}_index"]) for pair in pairs for side in ("chosen", "rejected")} & (
        rounds
    )
    again = (await generate(settings)).summary
    assert again["unfinished_thoughts"] == len(unfinished)
    assert "with a thought and no answer" in (tmp_path / "run/report.html").read_text()


@pytest.mark.slow
async def test_kept_thoughts_have_the_form_of_the_template_and_are_folded_in_the_report(thinker, tmp_path):
    thinker.answer = thoughtful(years)
    pairs = {"template": "qwen3", "cutoff_len": 1024}
    await generate(year_settings(thinker, tmp_path, pairs=pairs))
    kept = lines(tmp_path / "run/pairs.jsonl")
    assert {pair["chosen"] for pair in kept} == {f"<think>\n{THOUGHT}\n</think>\n\nAnswer: 1932"}
    page = (tmp_path / "run/report.html").read_text()
    assert "<details><summary>Thought (" in page and "&lt;statement&gt;Draft." in page and "<statement>" not in page
    # Another setting changes the pairs only.
    made = thinker.chats
    settings = year_settings(thinker, tmp_path, pairs=pairs)
    policy = settings.policy.model_copy(update={"thinking": "strip"})
    await generate(settings.model_copy(update={"policy": policy}))
    assert {pair["chosen"] for pair in lines(tmp_path / "run/pairs.jsonl")} == {"Answer: 1932"}
    assert thinker.chats == made


async def test_keep_needs_a_reasoning_template(thinker, tmp_path):
    settings = year_settings(thinker, tmp_path)
    policy = settings.policy.model_copy(update={"thinking": "keep"})
    with pytest.raises(UserError, match=r"smollm2 has no form for thoughts; set pairs.template"):
        await generate(settings.model_copy(update={"policy": policy}))
    assert not (tmp_path / "run").exists()


def judge_and_policy(prompt: str, seed: int) -> str:
    if "--- The case" not in prompt:
        return f"<think>{THOUGHT}{CUT}" if seed % 5 == 0 else f"Word number {seed % 1000}."
    case = prompt[prompt.rindex("--- The case") :]
    if case.endswith("Statements:"):
        return "<statement>A word is given.</statement>"
    if "<claim>" in case:
        return "[[No support]]" if "Draft" in case else "[[Fully supported]]"
    return f"So.\n[[{len(case) % 11}]]" if case.endswith("Analysis:") else "A word is there."


async def test_longreward_judges_answers_by_answers(thinker, tmp_path):
    thinker.answer = lambda prompt, seed: (
        reply if (reply := judge_and_policy(prompt, seed)).endswith(CUT) else thoughtful(lambda *_: reply)(prompt, seed)
    )
    data = run_settings(thinker, tmp_path, write_jsonl(tmp_path / "questions.jsonl", code_questions(4)))
    data |= {"method": "longreward", "judge": data["policy"], "longreward": {"num_samples": 6, "min_responses": 3}}
    del data["longmab"]
    summary = (await generate(GenerateConfig.model_validate(data))).summary
    notes = lines(tmp_path / "run/chunk_info.jsonl")
    assert {text for row in notes for text in row["info_list"].values()} == {"A word is there."}
    scored = lines(tmp_path / "run/scored_responses.jsonl")
    assert scored and {row["scores"]["faithfulness"] for row in scored} == {10}
    assert all(row["answer"].startswith("Word number") and row["thought"] == THOUGHT for row in scored)
    unfinished = [row for row in lines(tmp_path / "run/sampled_responses.jsonl") if not row["answer"]]
    assert unfinished and all(row["truncated"] and row["thought"] == THOUGHT for row in unfinished)
    assert summary["unfinished_thoughts"] == len(unfinished) == 24 - len(scored)
    assert (summary["failed"], summary["not_scored"]) == (0, 0)
