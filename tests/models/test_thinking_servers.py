"""Thoughts change no result, wherever a server puts them: runs equal those with a model that does not think."""

import json

import pytest
import yaml
from conftest import code_questions, judged, run_settings, write_jsonl
from servers import SERVERS, ServerStub
from stub import Stub, deterministic_answer

from lf_longpo.cli import main
from lf_longpo.config import GenerateConfig
from lf_longpo.generation.generate import generate

pytestmark = pytest.mark.slow  # two runs for each server

# Drafts of everything that is looked for in replies: answers, ratings, findings, statements.
DRAFT = "Answer: word1? [[2]] [[Not supported]] No relevant information. <statement>It is a draft.</statement>"
THINKING = [name for name, server in SERVERS.items() if "thoughts_in" in server]


@pytest.fixture(params=THINKING)
def server(request, key):
    return {**SERVERS[request.param], "thought": lambda prompt: DRAFT}


async def pairs_of(stub, folder, changes):
    data = run_settings(stub, folder, write_jsonl(folder / "q.jsonl", code_questions(6))) | changes
    if data["method"] == "longreward":
        del data["longmab"]
        data["judge"] = data["policy"]
    result = await generate(GenerateConfig.model_validate(data))
    assert result.summary["failed"] == 0 and result.summary["pairs"] > 0
    return (folder / "run/pairs.jsonl").read_text(), result.summary


@pytest.mark.parametrize(
    ("answer", "changes"),
    [
        (deterministic_answer, {}),
        (judged, {"method": "longreward", "longreward": {"num_samples": 3, "min_responses": 2, "chunk_size": 400}}),
    ],
    ids=["longmab", "longreward"],
)
async def test_pairs_are_those_of_a_model_that_does_not_think(server, tmp_path, answer, changes):
    with Stub(answer) as plain:
        expected, _ = await pairs_of(plain, tmp_path / "plain", changes)
    with ServerStub(answer, **server) as thinking:
        pairs, summary = await pairs_of(thinking, tmp_path / "thinking", changes)
    assert pairs == expected and "draft" not in pairs and summary["unfinished_thoughts"] == 0
    journal = "rollouts" if summary["method"] == "longmab" else "sampled_responses"
    rows = [json.loads(line) for line in (tmp_path / f"thinking/run/{journal}.jsonl").read_text().splitlines()]
    assert {row["thought"] for row in rows} == {DRAFT}


def scores_of(stub, folder):
    config = {
        "input": str(write_jsonl(folder / "q.jsonl", code_questions(6))),
        "output_dir": str(folder / "scores"),
        "tokenizer": "smollm2-135m",
        "model": {"model": "stub-model", "base_url": stub.base_url, "api_key_env": "STUB_KEY"},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["evaluate", "longqa", str(folder / "c.yaml")]) == 0
    return json.loads((folder / "scores/results.json").read_text())


def test_scores_are_those_of_a_model_that_does_not_think(server, tmp_path):
    with Stub() as plain:
        expected = scores_of(plain, tmp_path / "plain")
    with ServerStub(**server) as thinking:
        results = scores_of(thinking, tmp_path / "thinking")
    assert results["by_question"] == expected["by_question"] and results["unfinished_thoughts"] == 0
