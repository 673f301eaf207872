"""The end of a run that cannot go on: calls under way come back and are kept, and no further call is made."""

import json

import pytest
from aiohttp import web
from conftest import judged
from stub import Stub
from test_engine import a_run
from test_generate import rows

from lf_longpo.config import GenerateConfig
from lf_longpo.errors import Refused, UserError
from lf_longpo.generation.generate import generate
from lf_longpo.models.cache import CallCache
from lf_longpo.models.refusals import Refusals


def answer(status, message, **error):
    return web.json_response({"error": {"message": message, **error}}, status=status)


def judged_run(stub, tmp_path, questions, **longreward):
    """A LongReward run whose policy is its judge."""
    config = a_run(stub, tmp_path, questions, max_concurrency=8)
    data = config.model_dump(exclude={"longmab"}, exclude_defaults=True, mode="json")
    data |= {"method": "longreward", "judge": data["policy"], "longreward": longreward}
    return GenerateConfig.model_validate(data)


def kept_calls(tmp_path):
    cache = CallCache(tmp_path / "run/calls.sqlite")
    cache.open()
    try:
        return sum(totals.calls for totals in cache.totals().values())
    finally:
        cache.close()


@pytest.mark.slow
async def test_spent_credit_ends_a_run_as_an_interruption_does(key, tmp_path):
    with Stub(delay=0.05) as stub:
        config = a_run(stub, tmp_path, 12)
        broke = []

        def fail(body):
            if stub.chats > 64:  # eight questions at once, seven calls each
                broke.append(1)
                return answer(402, "Insufficient Balance")

        stub.fail = fail
        with pytest.raises(UserError, match=r"no credit left: .*Insufficient Balance.*; top it up") as fault:
            await generate(config)
        assert len(broke) <= 2 * 4  # those under way, and those that took their slots
        assert kept_calls(tmp_path) == 64  # none of the paid ones was cancelled
        summary = json.loads((tmp_path / "run/summary.json").read_text())
        pairs = rows(tmp_path / "run/pairs.jsonl")
        assert summary["failed"] == 0 and 0 < summary["unfinished"] < 12 and summary["pairs"] == len(pairs)
        left = summary["unfinished"]
        assert fault.value.__notes__ == [f"{12 - left} finished and kept, 0 failed, {left} unfinished"]
        assert (tmp_path / "data/codes.jsonl").is_file() == bool(pairs)
        stub.fail = lambda body: None
        assert (await generate(config)).exit_code == 0
        assert stub.chats - len(broke) == 12 * 7


async def test_spent_credit_lets_a_questions_other_calls_come_back(key, tmp_path):
    """The samples of one question are under way together."""
    with Stub(judged) as stub:
        config = judged_run(stub, tmp_path, 1, num_samples=6)
        stub.delay = 0.3
        stub.fail = lambda body: answer(402, "no") if stub.chats == 6 else None
        with pytest.raises(UserError, match="no credit left"):
            await generate(config, "sample")
        assert stub.chats == 6 and kept_calls(tmp_path) == 5
        assert len(rows(tmp_path / "run/sampled_responses.jsonl")) == 5


async def test_a_setting_that_no_reply_can_serve_makes_no_further_calls(key, tmp_path, monkeypatch):
    """Rating by probabilities needs a server that sends them; which is known with the first reply."""
    monkeypatch.setattr("lf_longpo.models.openai_chat.is_hosted", lambda url: True)
    with Stub(judged, delay=0.05) as stub:
        config = judged_run(stub, tmp_path, 8, num_samples=5, rating="expected")
        with pytest.raises(UserError, match=r"set longreward\.rating: parsed"):
            await generate(config)
        # Samples and extraction, a reply in each of the eight slots, and the calls that took the slots meanwhile.
        assert stub.chats <= 8 * 5 + 8 + 3 * 8


@pytest.mark.slow
async def test_a_moderated_prompt_costs_its_question_only(key, tmp_path):
    with Stub() as stub:

        def fail(body):
            if "code of place3" in body["messages"][0]["content"].rsplit("Question:", 1)[1]:
                return answer(403, "Your input was flagged by moderation", code=403)

        stub.fail = fail
        result = await generate(a_run(stub, tmp_path, 12))
        assert (result.summary["failed"], result.summary["unfinished"], result.exit_code) == (1, 0, 0)
        (failure,) = rows(tmp_path / "run/failures.jsonl")
        assert failure["id"] == "q3" and "answered 403 (refused by its content policy)" in failure["reason"]


async def test_a_prompt_that_is_forbidden_without_a_reason_costs_its_question_only(key, tmp_path):
    with Stub() as stub:
        stub.fail = lambda body: answer(403, "Forbidden") if "code of place1?" in str(body) else None
        result = await generate(a_run(stub, tmp_path, 12))
        assert (result.summary["failed"], result.exit_code) == (1, 0)


@pytest.mark.parametrize(
    ("status", "message"),
    [(400, "Unsupported parameter: 'max_tokens' (request 4f{})"), (403, "No access to this model"), (422, "top_p")],
)
async def test_a_refusal_of_every_call_ends_the_run_after_a_few(key, tmp_path, status, message):
    with Stub() as stub:
        stub.fail = lambda body: answer(status, message.format(stub.chats), code="unsupported_parameter")
        config = a_run(stub, tmp_path, 60)
        with pytest.raises(UserError, match=rf"answered {status}: .*the first calls like it, for 3 questions"):
            await generate(config)
        assert stub.chats <= 20  # those under way, and a few that took their slots
        assert json.loads((tmp_path / "run/summary.json").read_text())["unfinished"] >= 60 - 20


async def test_a_judge_that_refuses_every_call_ends_the_run_before_all_is_sampled(key, tmp_path):
    with Stub(judged) as stub:
        config = judged_run(stub, tmp_path, 40, num_samples=5)
        refused = []

        def fail(body):
            if "--- The case" in body["messages"][0]["content"]:
                refused.append(1)
                return answer(400, "Unsupported value: 'temperature' does not support 0.01 with this model.")

        stub.fail = fail
        with pytest.raises(UserError, match="Unsupported value"):
            await generate(config)
        assert len(refused) <= 30 and stub.chats - len(refused) < 40 * 5 / 4


async def test_a_server_that_refuses_the_list_of_models_is_reported_before_any_work(key, tmp_path):
    class Closed(Stub):
        async def _models(self, request):
            return answer(403, "no scope")

    with Closed() as stub:
        with pytest.raises(UserError, match=r"answered 403: .*check base_url and the key in STUB_KEY"):
            await generate(a_run(stub, tmp_path))
        assert not stub.chats and not (tmp_path / "run").exists()


async def test_an_embedder_that_refuses_full_batches_ends_the_run(key, tmp_path):
    class Small(Stub):
        async def _embeddings(self, request):
            if len((await request.json())["input"]) > 4:
                return answer(400, "batch size is invalid, it should not be larger than 4")
            return await super()._embeddings(request)

    with Small() as stub:
        config = a_run(stub, tmp_path, 40)
        longmab = config.longmab.model_copy(update={"init": "probe_similarity"})
        with pytest.raises(UserError, match="should not be larger than 4"):
            await generate(config.model_copy(update={"longmab": longmab}))
        assert stub.chats <= 10


class Watched:
    """Calls that end when a test says so."""

    def __init__(self):
        self.refusals, self.calls = Refusals(), []

    def start(self, kind="judge", question=None):
        watch = self.refusals.watch(kind, question or f"q{len(self.calls)}")
        watch.__enter__()
        self.calls.append(watch)

    def refuse(self, number, words="no"):
        error = Refused(words)
        return self.calls[number].__exit__(Refused, error, None)

    def answer(self, number):
        self.calls[number].__exit__(None, None, None)


def test_refusals_before_the_first_reply_wait_for_the_calls_that_began_earlier():
    """Refusals come back at once and replies later: a few refused prompts among good ones end nothing."""
    watched = Watched()
    for _ in range(6):
        watched.start()
    for number in (1, 2, 3, 4):
        assert watched.refuse(number) is not True
    watched.answer(0)
    assert watched.refuse(5) is not True
    again = Watched()
    for _ in range(5):
        again.start()
    for number in (1, 2, 3):
        again.refuse(number)
    with pytest.raises(UserError):
        again.refuse(0)


def test_refusals_in_different_words_or_of_other_calls_are_not_counted_together():
    watched = Watched()
    for number, (kind, words) in enumerate([("a", "no"), ("a", "never"), ("b", "no"), ("b", "no"), ("a", "no 7")]):
        watched.start(kind)
        watched.refuse(number, words)
    watched.start("a")
    watched.refuse(5, "no 8")
    watched.start("a")
    with pytest.raises(UserError, match="no 9"):
        watched.refuse(6, "no 9")


def test_the_calls_of_one_question_share_a_prompt_and_count_once():
    watched = Watched()
    for number, question in enumerate("aaaaab"):
        watched.start(question=question)
        watched.refuse(number)
    watched.start(question="c")
    with pytest.raises(UserError):
        watched.refuse(6)


@pytest.mark.slow
async def test_a_second_start_tries_the_few_refused_calls_again(key, tmp_path):
    """After the others were answered, equal refusals are those of single prompts."""
    with Stub() as stub:
        bad = [f"code of place{number}?" for number in (12, 13, 14, 15)]
        stub.fail = lambda body: answer(400, "odd prompt") if any(one in str(body) for one in bad) else None
        config = a_run(stub, tmp_path, 16)
        first = await generate(config)
        second = await generate(config)
        assert first.summary["failed"] == second.summary["failed"] == 4
