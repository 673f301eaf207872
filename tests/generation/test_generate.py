"""Whole runs against the deterministic stub server, through the command line's own functions."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from conftest import code_questions, run_settings, write_jsonl
from stub import KEY, Stub

from lf_longpo.cli import main
from lf_longpo.config import GenerateConfig
from lf_longpo.errors import UserError
from lf_longpo.generation.generate import generate
from lf_longpo.text.chunking import chunk_sentences


def settings(stub, tmp_path, rows=None, **changes):
    questions = write_jsonl(tmp_path / "questions.jsonl", code_questions(6) if rows is None else rows)
    data = run_settings(stub, tmp_path, questions)
    for name, value in changes.items():
        data[name] = data[name] | value if isinstance(value, dict) else value
    return GenerateConfig.model_validate(data)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
async def test_a_run_from_questions_to_a_registered_data_set(stub, tmp_path, tokenizer):
    config = settings(stub, tmp_path)
    result = await generate(config)
    assert result.exit_code == 0
    probes, rollouts = rows(tmp_path / "run/probes.jsonl"), rows(tmp_path / "run/rollouts.jsonl")
    assert len(probes) == 6 and all(probe["kept"] for probe in probes)
    assert len(rollouts) == 6 * 6
    for question in code_questions(6):
        own = sorted((row for row in rollouts if row["id"] == question["id"]), key=lambda row: row["round"])
        assert [row["round"] for row in own] == list(range(6))
        chunks = chunk_sentences(question["context"], tokenizer, 80)
        asked = question["question"].removeprefix("What is the ").removesuffix("?")
        for row in own:
            assert len(row["arms"]) == 2 and len(row["values"]) == len(chunks)
            shown = "\n".join(chunks[arm] for arm in row["arms"])
            if row["reward"] == 1.0:  # only where the evidence was shown
                assert f"The {asked} is {question['answer']}." in shown
    pairs = rows(tmp_path / "data/codes.jsonl")
    assert pairs == rows(tmp_path / "run/pairs.jsonl")
    assert len(pairs) == result.summary["pairs"] > 0
    assert [pair["id"] for pair in pairs] == sorted(pair["id"] for pair in pairs)
    for pair in pairs:
        assert pair["chosen_reward"] == 1.0 > pair["rejected_reward"]
        outputs = {row["round"]: row["output"] for row in rollouts if row["id"] == pair["id"]}
        assert outputs[pair["chosen_index"]] == pair["chosen"]
        assert outputs[pair["rejected_index"]] == pair["rejected"]
        assert isinstance(pair["answer"], str) and pair["answer"] in pair["chosen"]
        assert pair["input"] in pair["prompt"] and pair["prompt"].endswith("in as few words as possible.")
    info = json.loads((tmp_path / "data/dataset_info.json").read_text())
    assert info["codes"]["file_name"] == "codes.jsonl" and info["codes"]["ranking"]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["calls"]["probe"]["calls"] == 6 and summary["calls"]["rollout"]["calls"] == 36
    assert stub.most_in_flight <= config.policy.max_concurrency
    assert stub.embedded_texts - 1 == sum(len(probe["initial_values"]) + 1 for probe in probes)  # 1: is it there?


async def test_a_finished_run_makes_no_calls(stub, tmp_path):
    config = settings(stub, tmp_path)
    await generate(config)
    first = (tmp_path / "data/codes.jsonl").read_bytes()
    made, embedded = stub.chats, stub.embedded_texts
    (tmp_path / "data/codes.jsonl").unlink()
    await generate(config)
    assert (stub.chats, stub.embedded_texts) == (made, embedded)
    assert (tmp_path / "data/codes.jsonl").read_bytes() == first


@pytest.mark.slow
async def test_pairs_are_recreated_for_another_cutoff_without_a_call(stub, tmp_path, tokenizer):
    await generate(settings(stub, tmp_path))
    made = stub.chats
    before = rows(tmp_path / "data/codes.jsonl")
    await generate(settings(stub, tmp_path, pairs={"cutoff_len": 256}))
    after = rows(tmp_path / "data/codes.jsonl")
    assert stub.chats == made
    assert [row["chosen"] for row in after] == [row["chosen"] for row in before]
    assert all(len(tokenizer(row["prompt"])["input_ids"]) < 256 for row in after)


async def test_other_settings_in_the_same_folder_are_refused(stub, tmp_path):
    await generate(settings(stub, tmp_path))
    with pytest.raises(UserError, match=r"holds a run with other settings: longmab\.top_k was 2 and is now 3"):
        await generate(settings(stub, tmp_path, longmab={"top_k": 3}))
    changed = code_questions(6)
    changed[2]["context"] += " More."
    with pytest.raises(UserError, match="question 'q2', its prompt or its adapter has changed"):
        await generate(settings(stub, tmp_path, rows=changed))


@pytest.mark.slow
async def test_odd_but_good_input_works(stub, tmp_path):
    odd = code_questions(3)
    odd[0] |= {"context": f"The code of place0 is {odd[0]['answer']}."}  # shorter than a chunk, fewer than top_k
    odd[1] |= {"id": 12, "answer": [odd[1]["answer"], "another"]}
    odd[2] |= {"context": odd[2]["context"] + " {question} {context} {0} <|im_end|>"}
    result = await generate(settings(stub, tmp_path, rows=odd, longmab={"rounds": 24}))
    assert result.summary["failed"] == 0
    pairs = {pair["id"]: pair for pair in rows(tmp_path / "data/codes.jsonl")}
    assert pairs["12"]["answer"] == odd[1]["answer"]
    assert pairs["q2"]["answer"] == [odd[2]["answer"]]  # one type for the whole column
    assert "{question} {context} {0}" in pairs["q2"]["prompt"]


async def test_probes_that_miss_the_answer_leave_their_question_out(tmp_path, key):
    with Stub(answer=lambda prompt, seed: "The answer is nothing of that.") as stub:
        result = await generate(settings(stub, tmp_path))
    assert (result.summary["left_out"], result.summary["pairs"], result.exit_code) == (6, 0, 1)
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
async def test_a_lost_call_costs_its_question_only_and_is_tried_again(stub, tmp_path):
    def fail(body):
        if "code of place3" in body["messages"][0]["content"].rsplit("Question:", 1)[1]:
            return web.json_response({"error": {"message": "context too long for place3"}}, status=400)
        return None

    stub.fail = fail
    config = settings(stub, tmp_path)
    result = await generate(config)
    assert result.summary["failed"] == 1 and result.exit_code == 1  # one of six is more than a tenth
    (failure,) = rows(tmp_path / "run/failures.jsonl")
    assert failure["id"] == "q3" and "answered 400" in failure["reason"] and "too long for place3" in failure["reason"]
    assert "traceback" not in failure
    stub.fail = lambda body: None
    made = stub.chats
    result = await generate(config)
    assert result.summary["failed"] == 0 and result.exit_code == 0
    assert stub.chats - made == 7  # the probe and six rounds of q3
    assert not (tmp_path / "run/failures.jsonl").exists()


@pytest.mark.slow
async def test_rate_limits_and_server_errors_are_tried_again(stub, tmp_path):
    turn = iter([429, 503] * 100)

    def sometimes(body):
        if stub.chats % 5:
            return None
        return web.json_response({"error": {"message": "busy"}}, status=next(turn), headers={"Retry-After": "0.01"})

    stub.fail = sometimes
    result = await generate(settings(stub, tmp_path, policy={"max_retries": 6}))
    assert result.summary["failed"] == 0 and result.exit_code == 0


@pytest.mark.slow
async def test_calls_have_seeds_unless_set_otherwise(stub, tmp_path):
    await generate(settings(stub, tmp_path, policy={"send_seed": False}))
    assert stub.chats == 42 and stub.seeded == 0
    (tmp_path / "again").mkdir()
    await generate(settings(stub, tmp_path / "again"))
    assert stub.seeded == 42 and len(stub.requests) > 42


async def test_replies_without_text_are_failures(stub, tmp_path):
    stub.fail = lambda body: web.Response(text="<html>bad gateway</html>", content_type="text/html")
    result = await generate(settings(stub, tmp_path))
    assert result.summary["failed"] == 6 and result.exit_code == 1
    assert all("traceback" not in failure for failure in rows(tmp_path / "run/failures.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("init", ["query_similarity", "random"])
async def test_other_first_values_of_the_arms(stub, tmp_path, init):
    config = settings(stub, tmp_path, longmab={"init": init})
    assert (await generate(config)).exit_code == 0
    first = {probe["id"]: probe["initial_values"] for probe in rows(tmp_path / "run/probes.jsonl")}
    assert all(len(set(values)) > 1 for values in first.values())
    assert bool(stub.embedded_texts) == (init == "query_similarity")
    (tmp_path / "again").mkdir()
    await generate(settings(stub, tmp_path / "again", longmab={"init": init}))
    assert {probe["id"]: probe["initial_values"] for probe in rows(tmp_path / "again/run/probes.jsonl")} == first


@pytest.mark.slow
async def test_chunks_drawn_at_random_take_the_same_calls_and_need_not_wait_for_each_other(stub, tmp_path):
    config = settings(stub, tmp_path, longmab={"selection": "random", "init": "random", "rounds": 8})
    stub.delay = 0.05
    assert (await generate(config)).exit_code == 0
    assert stub.chats == 6 + 6 * 8 and stub.most_in_flight == 4
    rollouts = rows(tmp_path / "run/rollouts.jsonl")
    initial = {probe["id"]: probe["initial_values"] for probe in rows(tmp_path / "run/probes.jsonl")}
    assert all(row["arms"] == sorted(set(row["arms"])) and len(row["arms"]) == 2 for row in rollouts)
    assert all(row["values"] == initial[row["id"]] for row in rollouts)  # nothing is learnt
    drawn = Counter(arm for row in rollouts for arm in row["arms"])
    assert len(drawn) > 2 and max(drawn.values()) < len(rollouts)

    # A run that lost some of them draws the same again.
    path = tmp_path / "run/rollouts.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[::2]))
    (tmp_path / "run/pairs.jsonl").unlink()
    await generate(config)
    assert stub.chats == 6 + 6 * 8
    by_place = {(row["id"], row["round"]): row for row in rollouts}
    assert {(row["id"], row["round"]): row for row in rows(path)} == by_place


@pytest.mark.slow
async def test_with_room_for_all_chunks_drawing_is_sampling_over_the_whole_context(stub, tmp_path):
    config = settings(stub, tmp_path, longmab={"selection": "random", "init": "random", "top_k": 1000})
    assert (await generate(config)).exit_code == 0
    chunks = {probe["id"]: len(probe["initial_values"]) for probe in rows(tmp_path / "run/probes.jsonl")}
    assert all(row["arms"] == list(range(chunks[row["id"]])) for row in rows(tmp_path / "run/rollouts.jsonl"))


@pytest.mark.slow
async def test_a_context_longer_than_the_window_loses_its_middle(stub, tmp_path):
    seen = []
    plain = stub.answer
    stub.answer = lambda prompt, seed: seen.append(prompt) or plain(prompt, seed)
    sampling = {"max_new_tokens": 100}
    config = settings(stub, tmp_path, policy={"context_window": 500}, longmab={"sampling": sampling})
    await generate(config)
    for question in code_questions(6):
        (probe,) = [text for text in seen if "Correct answer:" in text and question["question"] in text]
        assert question["context"][:50] in probe and question["context"][-50:] in probe and "\n...\n" in probe
        assert probe.endswith('form "The answer is ...".')


@pytest.mark.slow
async def test_the_work_of_broken_journal_lines_is_done_again(stub, tmp_path):
    config = settings(stub, tmp_path)
    await generate(config)
    whole, made = (tmp_path / "data/codes.jsonl").read_bytes(), stub.chats
    journal = tmp_path / "run/rollouts.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    lines[4] = '{"id": "q0"}\n'  # a part of a rollout
    journal.write_text("".join(lines[:-1]) + lines[-1][:30])
    (tmp_path / "run/calls.sqlite").unlink()
    await generate(config)
    assert stub.chats - made == 2
    assert (tmp_path / "data/codes.jsonl").read_bytes() == whole


def test_the_command_line_end_to_end(stub, tmp_path, capsys):
    questions = write_jsonl(tmp_path / "q.jsonl", code_questions(6))
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(run_settings(stub, tmp_path, questions)))
    assert main(["generate", str(config), "longmab.rounds=3"]) == 0
    printed = capsys.readouterr()
    train = f"longpo train yaml/smollm2_dpo.yaml dataset=codes dataset_dir={tmp_path / 'data'} cutoff_len=512"
    assert train in printed.out and "6/6 questions" in printed.err and "failed" not in printed.err
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), f"{file} holds the key"


def test_a_recipe_that_cannot_be_read_does_not_spoil_the_end_of_a_run(stub, tmp_path, capsys, monkeypatch):
    config = tmp_path / "c.yaml"
    config.write_text(
        yaml.safe_dump(run_settings(stub, tmp_path, write_jsonl(tmp_path / "q.jsonl", code_questions(2))))
    )
    recipes = tmp_path / "yaml"
    (recipes / "folder_dpo.yaml").mkdir(parents=True)
    odd = {"empty": b"", "list": b"- dataset\n", "broken": b"dataset: [", "text": b"dataset", "bytes": b"\xff\xfe\x00"}
    for name, text in odd.items():
        (recipes / f"{name}_dpo.yaml").write_bytes(text)
    (recipes / "zzz_dpo.yaml").write_text("dataset: codes\ntemplate: smollm2\ncutoff_len: 512\n")
    monkeypatch.chdir(tmp_path)
    assert main(["generate", str(config)]) == 0
    assert f"Next: longpo train yaml/zzz_dpo.yaml dataset_dir={tmp_path / 'data'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.base_url=http://127.0.0.1:9/v1", "no connection to http://127.0.0.1:9/v1"),
        ("policy.base_url=127.0.0.1:9", "must begin with http"),
        ("policy.api_key_env=NOT_SET", "the environment variable NOT_SET is not set; put"),
        ("policy.model=other", "does not serve 'other'; it serves stub-model"),
        ("embedder.api_key_env=NOT_SET", "the environment variable NOT_SET is not set; put"),
        ("pairs.template=llama33", "LLaMA-Factory has no template 'llama33'; did you mean llama3"),
        ("input=nowhere.jsonl", "no file nowhere.jsonl"),
        ("tokenizer=/nowhere", "tokenizer: /nowhere does not exist; set tokenizer to a model folder or a hub name"),
        ("longmab.prompt=nope", "longmab.prompt: no prompt 'nope'"),
        ("longmab.chunks=1", "unknown key longmab.chunks"),
        ("dataset_name='a,b'", "must not be empty or hold a comma"),
        ("dataset_dir=q.jsonl", "q.jsonl is a file; name another folder"),
        ("output_dir=q.jsonl/run", "q.jsonl is a file; name another folder"),
        ("dataset_name=q dataset_dir=.", "would be written over the input"),
        ("policy.base_url=http://host:port/v1", "is not an address"),
        ("policy.backend=transformers policy.base_url=null policy.model=/nowhere tokenizer=smollm2-135m", "/nowhere"),
    ],
)
def test_bad_settings_are_one_message_and_write_nothing(stub, tmp_path, capsys, monkeypatch, override, message):
    questions = write_jsonl(tmp_path / "q.jsonl", code_questions(2))
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(run_settings(stub, tmp_path, questions)))
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    assert main(["generate", str(config), "policy.max_retries=0", *override.split()]) == 2
    error = capsys.readouterr().err.removeprefix("loading ...\n")  # printed before heavy imports
    assert error.startswith("error: ") and message in error and KEY not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "q.jsonl"] and not data.exists()


def test_an_address_without_a_chat_server_is_reported(tmp_path, capsys, key):
    """A web page, a list, an object without data: whatever answers at base_url, one message."""
    for number, text in enumerate(("<html>hello</html>", "[]", '{"data": [{"id": 7}]}')):
        with Stub() as stub:
            stub.models_text = text
            folder = tmp_path / str(number)
            folder.mkdir()
            questions = write_jsonl(folder / "q.jsonl", code_questions(2))
            config = folder / "c.yaml"
            config.write_text(yaml.safe_dump(run_settings(stub, folder, questions)))
            assert main(["generate", str(config)]) == 2
            error = capsys.readouterr().err
            assert "sent a reply that cannot be read" in error or "does not serve" in error


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom lf_longpo.cli import main\n"
        "try:\n    main(['generate', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'llamafactory', 'pydantic', 'openai', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
