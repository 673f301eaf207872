import json

import pytest
import yaml
from conftest import code_questions, write_jsonl
from stub import MODEL

from lf_longpo.cli import main
from lf_longpo.evaluation.longqa import score


def test_scores_are_of_the_extracted_answer():
    assert score("It is so. Answer: the Rhine river", ["Rhine"]) == {
        "em": 0.0,
        "f1": pytest.approx(2 / 3),
        "sub_em": 1.0,
        "sub_em_output": 1.0,
        "answered": 1.0,
    }
    assert score("It is the Rhine", ["Rhine"]) == {
        "em": 0.0,
        "f1": 0.0,
        "sub_em": 0.0,
        "sub_em_output": 1.0,
        "answered": 0.0,
    }
    assert score("Answer: Elbe", ["Rhine", "elbe"])["em"] == 1.0


def write_config(stub, tmp_path, **changes):
    config = {
        "input": str(write_jsonl(tmp_path / "q.jsonl", code_questions(8))),
        "output_dir": str(tmp_path / "eval"),
        "model": {"backend": "openai", "model": MODEL, "base_url": stub.base_url, "api_key_env": "STUB_KEY"},
        "tokenizer": "smollm2-135m",
        "samples": 3,
        "sampling": {"temperature": 1.0, "max_new_tokens": 64},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config | changes))
    return str(tmp_path / "c.yaml")


def test_longqa_end_to_end_and_carrying_on(stub, tmp_path, capsys):
    config = write_config(stub, tmp_path)
    assert main(["evaluate", "longqa", config]) == 0
    predictions = [json.loads(line) for line in (tmp_path / "eval/predictions.jsonl").read_text().splitlines()]
    results = json.loads((tmp_path / "eval/results.json").read_text())
    assert len(predictions) == stub.chats == 24
    assert results["questions"] == 8 and results["samples"] == 3
    for metric in ("em", "f1", "sub_em", "answered"):
        assert results[metric] == pytest.approx(sum(row[metric] for row in predictions) / 24)
    assert 0 < results["em"] < 1

    kept = (tmp_path / "eval/predictions.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "eval/predictions.jsonl").write_text("".join(kept[:10]) + kept[10][:20])  # a torn line
    assert main(["evaluate", "longqa", config, f"baseline={tmp_path / 'eval'}"]) == 0
    assert stub.chats == 24
    assert json.loads((tmp_path / "eval/results.json").read_text()) == results
    assert capsys.readouterr().out.count(MODEL) == 3  # once alone, then with the baseline beside it


def test_another_adapter_in_the_same_folder_is_not_mistaken_for_the_first(stub, tmp_path, capsys, tokenizer):
    from lf_longpo.evaluation.longqa import _fingerprint

    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"one")
    first = _fingerprint(str(tmp_path))
    weights.write_bytes(b"two")
    assert first != _fingerprint(str(tmp_path)) and _fingerprint(None) == ""

    own = tmp_path / "own.txt"
    own.write_text("{context} Question: {question}")
    config = write_config(stub, tmp_path, prompt=str(own))
    assert main(["evaluate", "longqa", config]) == 0
    own.write_text("{context} Now answer. Question: {question}")
    assert main(["evaluate", "longqa", config]) == 2
    assert "its prompt or its adapter has changed" in capsys.readouterr().err


def test_long_contexts_lose_their_middle_not_their_question(stub, tmp_path):
    seen = []

    def answer(prompt, seed):
        seen.append(prompt)
        return "Answer: none"

    stub.answer = answer
    config = write_config(stub, tmp_path, max_prompt_tokens=400, samples=1)
    assert main(["evaluate", "longqa", config]) == 0
    for question in code_questions(8):
        (prompt,) = [prompt for prompt in seen if f"Question: {question['question']}\n" in prompt]
        assert question["context"][:60] in prompt and question["context"][-60:] in prompt
        assert "\n...\n" in prompt and prompt.endswith("in as few words as possible.")


def test_a_baseline_that_is_not_there_is_named(stub, tmp_path, capsys):
    assert main(["evaluate", "longqa", write_config(stub, tmp_path), "baseline=/nowhere"]) == 2
    assert "baseline: /nowhere holds no results.json" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("{}")
    assert main(["evaluate", "longqa", write_config(stub, tmp_path), f"baseline={tmp_path}"]) == 2
    assert "is not the result of an evaluation" in capsys.readouterr().err
    assert stub.chats == 0
