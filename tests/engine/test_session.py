"""What all runs open and close in the same way: the lock, the call cache, the summary and the models."""

import asyncio
import json
from dataclasses import dataclass

import pytest
import yaml
from aiohttp import web
from conftest import code_questions, judged, run_settings, write_jsonl
from filelock import FileLock, Timeout
from stub import MODEL
from test_self_instruct import well_read

from lf_longpo.cli import main
from lf_longpo.config import GenerateConfig, SamplingConfig
from lf_longpo.engine.failures import Failures
from lf_longpo.engine.outcomes import Outcome, Outcomes
from lf_longpo.engine.pipeline import Pipeline
from lf_longpo.engine.progress import Progress
from lf_longpo.engine.session import Session
from lf_longpo.errors import Interrupted, UserError
from lf_longpo.models.cache import CallCache
from lf_longpo.models.calls import Call
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.turns import QuestionOrder


def configured(stub, folder, **policy):
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(2)))
    data["policy"] |= policy
    return GenerateConfig.model_validate(data)


def server(stub):
    return {"model": MODEL, "base_url": stub.base_url, "api_key_env": "STUB_KEY"}


def generation(stub, folder):
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(2)))
    return ["generate"], data, ("probes.jsonl", "rollouts.jsonl")


def scoring(stub, folder):
    stub.answer = judged
    rows = [
        {"idx": f"{row['id']}-0", "query": row["question"], "answer": "Word number 7.", "context": row["context"]}
        for row in code_questions(2)
    ]
    data = {"output_dir": str(folder / "run"), "judge": server(stub), "tokenizer": "smollm2-135m"}
    return ["score", str(write_jsonl(folder / "r.jsonl", rows)), "--config"], data, ("scored_responses.jsonl",)


def evaluation(stub, folder):
    questions = str(write_jsonl(folder / "q.jsonl", code_questions(2)))
    data = {"input": questions, "output_dir": str(folder / "run"), "model": server(stub), "tokenizer": "smollm2-135m"}
    return ["evaluate", "longqa"], data, ("predictions.jsonl",)


def instruction(stub, folder):
    stub.answer = well_read
    text = "The council met in spring and decided about the harvest of rye. " * 40
    data = {
        "input": str(write_jsonl(folder / "documents.jsonl", [{"id": "d", "text": text}])),
        "output_dir": str(folder / "run"),
        "dataset_dir": str(folder / "data"),
        "dataset_name": "instructions",
        "model": server(stub),
        "tokenizer": "smollm2-135m",
        "min_tokens": 10,
    }
    return ["synthesize", "self-instruct"], data, ("instructions.jsonl",)


COMMANDS = [generation, scoring, evaluation, instruction]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_start_removes_the_summary_of_the_start_before_it(stub, tmp_path, command):
    words, data, journals = command(stub, tmp_path)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(data))
    main([*words, str(tmp_path / "c.yaml")])
    (summary,) = [path for path in (tmp_path / "run").glob("*.json") if path.name in ("summary.json", "results.json")]
    for name in (*journals, "calls.sqlite"):  # so that there is work again
        (tmp_path / "run" / name).unlink()
    there = []
    stub.on_chat = lambda _: there.append(summary.exists())
    made = stub.chats
    main([*words, str(tmp_path / "c.yaml")])
    assert stub.chats > made and not any(there)
    assert json.loads(summary.read_text())["calls"]


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_written_before_the_models_were_checked(stub, tmp_path, capsys, command):
    words, data, _ = command(stub, tmp_path)
    for name in ("policy", "judge", "model"):
        if name in data:
            data[name] = data[name] | {"model": "another-model"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(data))
    before = sorted(tmp_path.iterdir())
    assert main([*words, str(tmp_path / "c.yaml")]) == 2
    assert "does not serve 'another-model'" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before and not stub.chats


async def test_a_session_keeps_its_lock_and_its_cache_until_its_models_are_closed(
    stub, tmp_path, tokenizer, monkeypatch
):
    """A reply that comes back while the models close is paid for, so it is kept."""
    config = configured(stub, tmp_path)
    stub.delay = 0.2
    seen = []
    async with Session(config) as session:
        policy = session.chat(config.policy, tokenizer)
        await session.start(config.policy)
        session.open()
        call = Call("probe", "q0", 0, SamplingConfig(), lambda context: f"Question: code of {context}?", "place0")
        late = asyncio.create_task(policy.complete(call))
        close = policy.close

        async def wait_and_close():
            await late
            with pytest.raises(Timeout), FileLock(tmp_path / "run/.lock", timeout=0):
                pass
            seen.append("locked")
            await close()

        monkeypatch.setattr(policy, "close", wait_and_close)
    assert seen == ["locked"]
    with FileLock(tmp_path / "run/.lock", timeout=0):
        cache = CallCache(tmp_path / "run/calls.sqlite")
        cache.open()
        assert cache.totals()["probe"].calls == 1
        cache.close()


async def test_one_configuration_is_one_model(stub, tmp_path, tokenizer):
    config = configured(stub, tmp_path)
    async with Session(config) as session:
        policy = session.chat(config.policy, tokenizer)
        assert session.chat(config.policy.model_copy(), tokenizer) is policy
        assert session.chat(config.policy.model_copy(update={"timeout": 1.0}), tokenizer) is not policy
    assert not (tmp_path / "run").exists()


async def test_a_server_that_was_checked_is_not_asked_again(stub, tmp_path, tokenizer):
    config = configured(stub, tmp_path)
    async with Session(config) as session:
        await session.check_models(config.policy, config.embedder)
        stub.models_text = "no list"
        stub.fail_embedding = lambda body: web.json_response({"error": {"message": "no"}}, status=400)
        policy = session.chat(config.policy, tokenizer)
        assert session.embedder(config.embedder) is session.embedder(config.embedder.model_copy())
        await session.start(config.policy, config.embedder)
        assert policy.window == 8192
    assert not (tmp_path / "run").exists()


def test_an_unknown_window_names_the_section_that_sets_it(stub, tmp_path, capsys):
    questions = write_jsonl(tmp_path / "q.jsonl", code_questions(1))
    settings = run_settings(stub, tmp_path, questions)
    judge = settings.pop("policy")
    data = settings | {"method": "longreward", "policy": judge | {"context_window": 4096}, "judge": judge}
    del data["longmab"]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(data))
    stub.models_text = json.dumps({"object": "list", "data": [{"id": MODEL}]})
    assert main(["generate", str(tmp_path / "c.yaml")]) == 2
    assert "set judge.context_window to the most tokens of prompt and reply" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


async def test_settings_whose_results_are_made_again_may_change(stub, tmp_path):
    config = configured(stub, tmp_path)
    async with Session(config) as session:
        assert not session.check_settings()
        session.open()
    changed = config.model_copy(update={"pairs": config.pairs.model_copy(update={"cutoff_len": 100})})
    async with Session(changed) as session:
        assert session.check_settings(["pairs."])
        with pytest.raises(UserError, match=r"pairs\.cutoff_len was 512 and is now 100"):
            session.check_settings(["longreward."])


@dataclass(frozen=True)
class Numbered:
    id: str

    @property
    def key(self):
        return self.id


async def test_questions_are_ranked_while_they_are_worked_on(tmp_path):
    ledger, order, ranks = Ledger(), QuestionOrder(), {}

    async def work(question):
        ranks[question.id] = order.rank(question.id)

    progress = Progress("test", 7, 7, ledger)
    pipeline = Pipeline(7, work, 3, Failures(tmp_path / "failures.jsonl"), progress, ledger, order)
    tally = await pipeline.run(Numbered(f"q{number}") for number in range(7))
    assert tally.done == 7 and not (tmp_path / "failures.jsonl").exists()
    assert list(ranks.values()) == [0, 1, 2, 3, 4, 4, 4]  # the last three share a rank
    assert order.rank("q6") == 0


@pytest.mark.parametrize("at_once", [1, 4])
async def test_an_interrupted_run_counts_what_earlier_starts_finished(tmp_path, at_once):
    """q3 and q5 are finished; this start is interrupted in its first question."""
    ledger, worked = Ledger(), []

    async def work(question):
        worked.append(question.id)
        if question.id == "q0":
            ledger.interrupt()
        if question.id not in ("q3", "q5"):
            raise Interrupted("stop")

    progress = Progress("test", 9, 9, ledger)
    order, failures = QuestionOrder(), Failures(tmp_path / "failures.jsonl")
    pipeline = Pipeline(9, work, at_once, failures, progress, ledger, order, lambda: ["q3", "q5", "gone"])
    tally = await pipeline.run(Numbered(f"q{number}") for number in range(9))
    assert (tally.done, tally.unfinished, tally.interrupted) == (2, 7, True)
    assert worked[-2:] == ["q3", "q5"] and "q6" not in worked


async def test_an_interrupted_first_start_reads_no_more_questions(tmp_path):
    ledger, read = Ledger(), []

    async def work(question):
        ledger.interrupt()
        raise Interrupted("stop")

    progress = Progress("test", 99, 99, ledger)
    pipeline = Pipeline(99, work, 1, Failures(tmp_path / "f.jsonl"), progress, ledger, QuestionOrder(), lambda: ["q0"])
    tally = await pipeline.run(read.append(number) or Numbered(f"q{number}") for number in range(99))
    assert len(read) <= 3 and (tally.done, tally.unfinished) == (0, 99)


def test_outcomes_are_counted_by_their_keys_in_the_summary(capsys):
    progress = Progress("test", 3, 3, Ledger())
    outcomes = Outcomes(progress, {Outcome.TRUNCATED: 4})
    outcomes.count(Outcome.PROBE_FAILED)
    outcomes.count(Outcome.TRUNCATED)
    shown = [Outcome.PROBE_FAILED, Outcome.TRUNCATED, Outcome.NOT_SCORED]
    assert outcomes.summary(*shown) == {"left_out": 1, "cut_off": 5, "not_scored": 0}
    with progress:
        pass
    assert "1 probe failed" in capsys.readouterr().err
