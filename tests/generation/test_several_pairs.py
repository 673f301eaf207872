"""Several pairs of a question: the files of a run, its second start, reviews, report, viewer and export."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from conftest import code_questions, graded, judged, run_settings, write_jsonl
from starlette.testclient import TestClient
from stub import Stub

from lf_longpo.cli import main
from lf_longpo.config import GenerateConfig
from lf_longpo.data.records import Question
from lf_longpo.data.review import SIDES, Decision, Reviews, decisions_of, pair_digest
from lf_longpo.errors import UserError
from lf_longpo.generation.generate import generate
from lf_longpo.longmab.method import Prompts
from lf_longpo.plugin.encoding import TemplateEncoder
from lf_longpo.run_folder.pair_sets import find_pair_set
from lf_longpo.run_folder.status import status_of
from lf_longpo.viewer.app import make_app
from lf_longpo.viewer.index import PairIndex

pytestmark = pytest.mark.slow  # whole runs, with LLaMA-Factory's encoding
COLUMNS = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}


@pytest.fixture
def server(key):
    with Stub(graded) as stub:
        yield stub


def config_of(stub, folder, method="longmab", questions=4, **pairs) -> GenerateConfig:
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(questions)))
    if method == "longreward":
        del data["longmab"]
        data |= {"method": method, "judge": data["policy"], "longreward": {"num_samples": 6, "chunk_size": 512}}
    else:
        data["longmab"]["rounds"] = 12
    data["pairs"] |= pairs
    return GenerateConfig.model_validate(data)


def pairs_of(folder, name="data/codes.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def by_question(rows) -> dict[str, list[dict]]:
    found = {}
    for row in rows:
        found.setdefault(row["question_id"], []).append(row)
    return found


@pytest.mark.parametrize("method", ["longmab", "longreward"])
async def test_a_finished_run_gives_more_pairs_without_a_request(server, tmp_path, method):
    server.answer = graded if method == "longmab" else judged
    await generate(config_of(server, tmp_path, method))
    requests, published = server.chats, (tmp_path / "data/codes.jsonl").read_bytes()
    single = pairs_of(tmp_path)
    assert all("question_id" not in row for row in single)
    result = await generate(config_of(server, tmp_path, method, per_question=3))
    rows = pairs_of(tmp_path)
    assert server.chats == requests and rows == pairs_of(tmp_path, "run/pairs.jsonl")
    assert result.summary["pairs"] == len(rows) > len(single) == result.summary["questions_with_pairs"]
    grouped = by_question(rows)
    assert list(grouped) == [row["id"] for row in single] and len({row["id"] for row in rows}) == len(rows)
    for first, (id, pairs) in zip(single, grouped.items(), strict=True):
        sides = ["id", "chosen", "rejected", "chosen_reward", "rejected_reward", "chosen_index", "rejected_index"]
        assert [pairs[0][name] for name in sides] == [first[name] for name in sides] and len(pairs) <= 3
        assert [row["id"] for row in pairs[1:]] == [
            f"{id}#{row['chosen_index']}-{row['rejected_index']}" for row in pairs[1:]
        ]
        assert len({row["prompt"] for row in pairs}) == 1
        assert all(row["chosen_reward"] > row["rejected_reward"] for row in pairs)
    await generate(config_of(server, tmp_path, method, per_question=4))
    wider = by_question(pairs_of(tmp_path))
    for id, pairs in grouped.items():  # nothing is lost, and all keep their ids
        assert [row["id"] for row in wider[id]][: len(pairs)] == [row["id"] for row in pairs]
    await generate(config_of(server, tmp_path, method))
    assert (tmp_path / "data/codes.jsonl").read_bytes() == published and server.chats == requests


async def test_the_prompt_is_cut_for_the_longest_response_of_all_pairs(server, tmp_path):
    await generate(config_of(server, tmp_path, cutoff_len=300, per_question=4))
    encoder, cut = TemplateEncoder("smollm2", "smollm2-135m", 10**6), 0
    for pairs in by_question(pairs_of(tmp_path)).values():
        lengths = [[sum(encoder.length(row["prompt"], row[side])) for side in SIDES] for row in pairs]
        longest = max(map(max, lengths))
        assert longest <= 300
        cut += longest > 300 - 12 and longest > max(lengths[0])  # another pair than the first has set the length
    assert cut


async def test_a_pair_without_room_for_its_prompt_does_not_cost_the_others(server, tmp_path):
    every = {"choose": "all", "per_question": 99}
    config = config_of(server, tmp_path, **every)
    await generate(config)
    encoder, render = TemplateEncoder("smollm2", "smollm2-135m", 10**6), Prompts(config.longmab).rollout
    bare = {
        row["id"]: max(sum(encoder.length(render(Question("", row["input"], (), ""))(""), row[side])) for side in SIDES)
        for row in pairs_of(tmp_path)
    }
    limit = max(length for id, length in bare.items() if "#" not in id)  # each first pair fits
    fitting = [id for id, length in bare.items() if length <= limit]
    assert len(fitting) < len(bare)
    result = await generate(config_of(server, tmp_path, cutoff_len=limit, **every))
    assert [row["id"] for row in pairs_of(tmp_path)] == fitting
    assert (result.summary["pairs"], result.summary["unfit"]) == (len(fitting), 0)
    result = await generate(config_of(server, tmp_path, cutoff_len=limit - 1, **every))
    assert result.summary["unfit"] == 1  # a first pair that does not fit costs its question, as with one pair


async def test_a_write_that_was_killed_between_two_pairs_is_completed(server, tmp_path):
    config = config_of(server, tmp_path, per_question=3)
    await generate(config)
    whole, path = (tmp_path / "data/codes.jsonl").read_bytes(), tmp_path / "run/pairs.jsonl"
    rows, requests = pairs_of(tmp_path), server.chats
    number = next(i for i, row in enumerate(rows) if "#" in row["id"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:number]) + '{"id": "q')
    await generate(config)
    assert (tmp_path / "data/codes.jsonl").read_bytes() == whole == path.read_bytes() and server.chats == requests


def test_replaced_pairs_of_a_question_do_not_count(server, tmp_path):
    config = config_of(server, tmp_path, per_question=3)
    asyncio.run(generate(config))
    whole, path = (tmp_path / "data/codes.jsonl").read_bytes(), tmp_path / "run/pairs.jsonl"
    stale = [row | {"chosen": "Another answer.", "chosen_index": 99} for row in pairs_of(tmp_path)]
    for row in stale:
        row["id"] = row["id"].replace("#", "#99")
    path.write_bytes("".join(json.dumps(row) + "\n" for row in stale).encode() + whole)
    (tmp_path / "run/report.html").unlink()
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "Another answer." not in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    asyncio.run(generate(config))
    assert (tmp_path / "data/codes.jsonl").read_bytes() == whole


def test_lowering_reports_reviewed_pairs_and_raising_brings_their_decisions_back(server, tmp_path, capsys):
    asyncio.run(generate(config_of(server, tmp_path, per_question=3)))
    rows = pairs_of(tmp_path)
    further = [row for row in rows if "#" in row["id"]]
    reviews = Reviews(decisions_of(tmp_path / "data/codes.jsonl"), reviewer="Ada")
    for row in (rows[0], *further[:2]):
        reviews.decide(pair_digest(row, COLUMNS), row["id"], Decision("reject"))
    reviews.close()
    single = tmp_path / "single.yaml"
    single.write_text(config_of(server, tmp_path).model_dump_json(exclude_defaults=True))
    assert main(["generate", str(single)]) == 0
    (first, *_) = pairs_of(tmp_path)
    assert first["prompt"] != rows[0]["prompt"] and first["chosen"] == rows[0]["chosen"]
    rejected = Decision("reject", reviewer="Ada")
    assert Reviews(reviews.path).of(pair_digest(first, COLUMNS)) == rejected
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 reviewed pairs are no longer in the data set. The decisions stay in" in printed
    assert "reviewed pairs that are no longer in the data set" in (tmp_path / "run/report.html").read_text()
    assert main(["generate", str(single), "pairs.per_question=3"]) == 0
    assert "no longer in the data set" not in capsys.readouterr().out
    assert pairs_of(tmp_path) == rows
    # The context of the first pair was cut elsewhere for the longer responses of the others, and its decision stays.
    decided = Reviews(reviews.path)
    assert all(decided.of(pair_digest(row, COLUMNS)) == rejected for row in (rows[0], *further[:2]))
    register = ["register", str(tmp_path / "run"), "--name", "reviewed", "--reviewed"]
    assert main([*register, "--dataset-dir", str(tmp_path / "data")]) == 0
    assert len(pairs_of(tmp_path, "data/reviewed.jsonl")) == len(rows) - 3


async def test_a_question_with_the_id_of_a_pair_is_refused(server, tmp_path):
    config = config_of(server, tmp_path, per_question=2)
    questions = code_questions(4)
    write_jsonl(tmp_path / "q.jsonl", [*questions, questions[0] | {"id": "q1#3-7"}])
    with pytest.raises(UserError, match=r"'q1#3-7' of a question can become the id of a pair of the question 'q1'; re"):
        await generate(config)
    assert not (tmp_path / "run").exists()
    questions[0] |= {"id": "q9#3-7"}  # no question q9
    write_jsonl(tmp_path / "q.jsonl", questions)
    await generate(config)
    assert "q9#3-7" in by_question(pairs_of(tmp_path))


def test_report_status_viewer_and_export_count_questions_and_pairs(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = tmp_path / "run"
    config = config_of(server, tmp_path, per_question=3)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(json.loads(config.model_dump_json(exclude_defaults=True))))
    assert main(["generate", str(tmp_path / "c.yaml")]) == 0
    rows = pairs_of(tmp_path)
    questions = len(by_question(rows))
    assert questions < len(rows)
    assert f"{len(rows)} pairs from {questions} of 4 questions" in " ".join(capsys.readouterr().out.split())
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"{questions} of 4 questions gave a pair, {len(rows)} pairs in all." in page
    assert f"in {len(rows)} of" not in page and f"of {len(rows)} pairs" in page  # the lengths are of pairs
    status = status_of(run)
    assert (status.pairs, status.questions_with_pairs) == (len(rows), questions)
    assert main(["status", str(run)]) == 0
    assert f"{len(rows)} from {questions} questions" in capsys.readouterr().out
    assert main(["report", str(run), str(run)]) == 0
    assert "questions with pairs" in (run / "comparison.html").read_text(encoding="utf-8")

    pair_set = find_pair_set(str(run), Path("dataset_info"))
    index = PairIndex(pair_set, {})
    index.reader.refresh()
    client = TestClient(make_app(pair_set, index, Reviews(pair_set.decisions), ("testserver",)))
    number = next(i for i, row in enumerate(rows, 1) if "#" in row["id"])
    of_question = [i for i, row in enumerate(rows, 1) if row["question_id"] == rows[number - 1]["question_id"]]
    text = client.get(f"/pair/{number}").text
    assert "Pairs of this question:" in text and f'<strong aria-current="page">{number}</strong>' in text
    assert all(f'<a href="/pair/{other}?">{other}</a>' in text for other in of_question if other != number)
    assert f"round {rows[number - 1]['chosen_index'] + 1}, prompt with chunks" in text  # the evidence of a further pair
    index.reader.stop()

    target = tmp_path / "trl.jsonl"
    assert main(["export", str(run), str(target), "--to", "trl-dpo"]) == 0
    assert [row["id"] for row in pairs_of(tmp_path, "trl.jsonl")] == [row["id"] for row in rows]
