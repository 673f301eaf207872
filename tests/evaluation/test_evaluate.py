import json

import pytest
import yaml
from conftest import code_questions, write_jsonl
from stub import MODEL

from lf_longpo.cli import main
from lf_longpo.config import LongBenchConfig, LongQAConfig
from lf_longpo.evaluation.compare import compare
from lf_longpo.evaluation.intervals import interval_of_mean
from lf_longpo.evaluation.longqa import METRICS, score


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


def stub_model(stub):
    return {"backend": "openai", "model": MODEL, "base_url": stub.base_url, "api_key_env": "STUB_KEY"}


def write_config(stub, tmp_path, **changes):
    config = {
        "input": str(write_jsonl(tmp_path / "q.jsonl", code_questions(8))),
        "output_dir": str(tmp_path / "eval"),
        "model": stub_model(stub),
        "tokenizer": "smollm2-135m",
        "samples": 3,
        "sampling": {"temperature": 1.0, "max_new_tokens": 64},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config | changes))
    return str(tmp_path / "c.yaml")


def results_of(tmp_path):
    return json.loads((tmp_path / "eval/results.json").read_text())


def rows_of(tmp_path):
    return [json.loads(line) for line in (tmp_path / "eval/predictions.jsonl").read_text().splitlines()]


def test_longqa_end_to_end_and_carrying_on(stub, tmp_path, capsys):
    config = write_config(stub, tmp_path)
    assert main(["evaluate", "longqa", config]) == 0
    predictions, results = rows_of(tmp_path), results_of(tmp_path)
    assert len(predictions) == stub.chats == 24
    assert results["questions"] == 8 and results["samples"] == 3
    for metric in ("em", "f1", "sub_em", "answered"):
        assert results[metric] == pytest.approx(sum(row[metric] for row in predictions) / 24)
    assert 0 < results["em"] < 1
    low, high = results["intervals"]["em"]
    assert 0 <= low < results["em"] < high <= 1
    assert results["calls"]["longqa"]["calls"] == 24

    kept = (tmp_path / "eval/predictions.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "eval/predictions.jsonl").write_text("".join(kept[:10]) + kept[10][:20])  # a torn line
    assert main(["evaluate", "longqa", config, f"baseline={tmp_path / 'eval'}"]) == 0
    assert stub.chats == 24
    assert results_of(tmp_path) | {"seconds": 0} == results | {"seconds": 0}
    assert capsys.readouterr().out.count(MODEL) == 3  # once alone, then with the baseline next to it


def test_several_sets_count_alike_however_many_questions_they_have(stub, tmp_path, capsys):
    """By hand: one set all right, the other all wrong; their ids are the same."""
    folder = tmp_path / "sets"
    folder.mkdir()
    questions = code_questions(6)
    write_jsonl(folder / "musique.jsonl", questions)
    write_jsonl(folder / "narrativeqa.jsonl", questions[:2])
    right = {question["question"]: question["answer"] for question in questions[2:]}

    def answer(prompt, seed):
        return "Answer: " + next((gold for question, gold in right.items() if question in prompt), "nobody knows")

    stub.answer = answer
    greedy = {"samples": 1, "sampling": {"temperature": 0.0, "max_new_tokens": 64}}
    assert main(["evaluate", "longqa", write_config(stub, tmp_path, input=str(folder), **greedy)]) == 0
    results = results_of(tmp_path)
    assert {name: (row["questions"], row["em"]) for name, row in results["sets"].items()} == {
        "musique": (6, pytest.approx(4 / 6)),
        "narrativeqa": (2, 0.0),
    }
    assert results["em"] == pytest.approx(1 / 3) and results["questions"] == 8
    low, high = results["intervals"]["em"]
    assert 0 < low < 1 / 3 < high <= 0.5
    printed = capsys.readouterr().out
    assert "musique" in printed and "mean of the sets" in printed

    other = [str(folder / "musique.jsonl"), str(folder / "narrativeqa.jsonl")]
    stub.answer = lambda prompt, seed: "Answer: nobody knows"
    config = write_config(stub, tmp_path, input=other, output_dir=str(tmp_path / "worse"), **greedy)
    assert main(["evaluate", "longqa", config]) == 0
    comparison = compare(tmp_path / "eval", tmp_path / "worse")
    found = {(one.scope, one.metric): one for one in comparison.differences}
    assert found["all", "em"].means == pytest.approx((1 / 3, 0.0))
    assert found["musique", "em"].difference.mean == pytest.approx(-4 / 6)
    assert found["narrativeqa", "em"].difference == (0.0, 0.0, 0.0)


def test_what_an_evaluation_will_take_is_told_beforehand(stub, tmp_path, capsys):
    config = write_config(stub, tmp_path, model=stub_model(stub) | {"price": {"prompt": 1.0, "completion": 2.0}})
    assert main(["evaluate", "longqa", config, "--estimate"]) == 0
    printed = capsys.readouterr().out
    assert stub.chats == 0 and "longqa, expected" in printed and not (tmp_path / "eval").exists()
    printed = next(line for line in printed.splitlines() if "│ longqa" in line)
    calls, prompt = (int(cell.replace(",", "")) for cell in printed.split("│")[2:4])
    assert main(["evaluate", "longqa", config]) == 0
    made = results_of(tmp_path)["calls"]["longqa"]
    assert calls == made["calls"] == 24
    assert results_of(tmp_path)["cost"] == pytest.approx((made["prompt_tokens"] + 2 * made["completion_tokens"]) / 1e6)
    assert prompt > 0


def test_a_budget_ends_an_evaluation_that_can_be_carried_on(stub, tmp_path, capsys):
    priced = stub_model(stub) | {"price": {"prompt": 1000.0, "completion": 0.0}, "max_concurrency": 1}
    config = write_config(stub, tmp_path, model=priced, max_cost=7.0)
    assert main(["evaluate", "longqa", config]) == 1
    made = stub.chats
    assert 0 < made < 24 and not (tmp_path / "eval/results.json").exists()
    assert "raise it and start the same command again" in capsys.readouterr().out
    assert main(["evaluate", "longqa", config, "max_cost=1000000"]) == 0
    assert stub.chats == 24


def test_another_adapter_in_the_same_folder_is_not_mistaken_for_the_first(stub, tmp_path, capsys, tokenizer):
    from lf_longpo.models.adapters import fingerprint

    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"one")
    first = fingerprint(str(tmp_path))
    weights.write_bytes(b"two")
    assert first != fingerprint(str(tmp_path)) and fingerprint(None) == ""

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


def test_an_interval_holds_the_mean_and_is_the_same_every_time():
    values = [0.0, 0.2, 0.4, 1.0] * 10
    interval = interval_of_mean(values)
    assert interval == interval_of_mean(values)
    # Normal approximation by hand: the standard deviation is sqrt(0.14), of a mean of 40 a 40th of that variance.
    assert interval.mean == pytest.approx(0.4)
    assert interval.low == pytest.approx(0.4 - 1.96 * (0.14 / 40) ** 0.5, abs=0.01)
    assert interval.high == pytest.approx(0.4 + 1.96 * (0.14 / 40) ** 0.5, abs=0.01)
    assert interval_of_mean([0.25]) == (0.25, 0.25, 0.25)
    assert interval_of_mean([0.5] * 9) == (0.5, 0.5, 0.5)
    # Of two sets the variances of the halves add up; one question alone adds nothing.
    both = interval_of_mean(values, [1.0] * 3, [0.25])
    assert both.mean == pytest.approx((0.4 + 1.0 + 0.25) / 3)
    assert both.low == pytest.approx(both.mean - 1.96 * (0.14 / 40) ** 0.5 / 3, abs=0.005)


def an_evaluation(folder, scores, **changes):
    """The results of an evaluation: each question's F1."""
    folder.mkdir()
    by_question = {
        id: {"digest": f"digest of {id}"} | dict.fromkeys(METRICS, 0.0) | {"f1": f1} for id, f1 in scores.items()
    }
    results = {"benchmark": "longqa", "model": folder.name, "adapter": None, "metrics": METRICS, "groups": {}}
    results |= {"questions": len(scores), "sets": {"s": {}}, "by_question": {"s": by_question}}
    (folder / "results.json").write_text(json.dumps(results | changes))
    return folder


def test_two_evaluations_are_compared_question_by_question(tmp_path, capsys):
    before = an_evaluation(tmp_path / "before", {f"q{n}": 0.1 * n + 0.1 for n in range(8)} | {"alone": 1.0})
    after = an_evaluation(tmp_path / "after", {f"q{n}": 0.1 * n + 0.4 for n in range(8)})
    comparison = compare(before, after)
    assert (comparison.questions, comparison.only_one) == (8, 1)
    (f1,) = [one for one in comparison.differences if one.metric == "f1"]
    assert f1.means == pytest.approx((0.35 + 0.1, 0.35 + 0.4))
    # Each question became better by 0.3, so there is no doubt, however much questions differ.
    assert f1.difference == pytest.approx((0.3, 0.3, 0.3))
    assert main(["evaluate", "compare", str(before), str(after)]) == 0
    printed = capsys.readouterr().out
    assert "+30.0" in printed and "higher" in printed and "not sure" in printed
    assert "1 questions that only one of them answered, or that differ in text, are left out" in printed


def test_questions_of_one_id_and_another_text_are_not_compared(stub, tmp_path):
    config = write_config(stub, tmp_path)
    assert main(["evaluate", "longqa", config]) == 0
    questions = code_questions(8)
    questions[0] |= {"question": "Something else?"}
    other = write_jsonl(tmp_path / "other/q.jsonl", questions)
    assert main(["evaluate", "longqa", config, f"input={other}", f"output_dir={tmp_path / 'other/eval'}"]) == 0
    comparison = compare(tmp_path / "eval", tmp_path / "other/eval")
    assert (comparison.questions, comparison.only_one) == (7, 2)
    assert {one.difference for one in comparison.differences} == {(0.0, 0.0, 0.0)}  # same answers to the same questions


def test_more_input_costs_only_what_is_new(stub, tmp_path):
    questions = code_questions(8)
    first = write_jsonl(tmp_path / "first.jsonl", questions[:5])
    config = write_config(stub, tmp_path, input=str(first))
    assert main(["evaluate", "longqa", config]) == 0
    assert stub.chats == 15
    second = write_jsonl(tmp_path / "second.jsonl", questions[5:])
    assert main(["evaluate", "longqa", config, f"input=[{first}, {second}]"]) == 0
    assert stub.chats == 24 and results_of(tmp_path)["questions"] == 8
    assert list(results_of(tmp_path)["sets"]) == ["first", "second"]


def test_inputs_of_one_name_are_refused(stub, tmp_path, capsys):
    for folder in ("a", "b"):
        write_jsonl(tmp_path / folder / "test.jsonl", code_questions(2))
    config = write_config(stub, tmp_path, input=[str(tmp_path / name / "test.jsonl") for name in ("a", "b")])
    assert main(["evaluate", "longqa", config]) == 2
    assert "give two sets the same name" in capsys.readouterr().err


def test_published_rows_of_longmab_and_longbench_are_read(stub, tmp_path, capsys):
    published = [
        {"id": 7, "input": "Where?", "context": "The ferry was built in Thun.", "answers": ["Thun", "in Thun"]}
    ]
    longbench = [{"_id": "a1", "input": "Where?", "context": "In Bern.", "answers": ["Bern"], "dataset": "qasper"}]
    stub.answer = lambda prompt, seed: "Answer: Thun" if "ferry" in prompt else "Answer: Bern"
    files = [str(write_jsonl(tmp_path / f"{name}.jsonl", rows)) for name, rows in
             (("musique", published), ("qasper", longbench))]  # fmt: skip
    assert main(["evaluate", "longqa", write_config(stub, tmp_path, input=files)]) == 0
    assert results_of(tmp_path)["em"] == 1.0
    assert {row["id"] for row in rows_of(tmp_path)} == {"7", "a1"}


def test_what_is_not_said_of_the_sampling_stays_greedy(stub, tmp_path):
    for kind, prompt in ((LongBenchConfig, "plain"), (LongQAConfig, "reasoning")):
        data = {"input": "x", "output_dir": "y", "model": stub_model(stub), "sampling": {"max_new_tokens": 512}}
        config = kind(**data)
        sampling = config.sampling
        assert (sampling.temperature, sampling.top_p, sampling.presence_penalty) == (0.0, 1.0, 0.0)
        assert config.prompt == prompt and sampling.max_new_tokens == 512


def test_what_cannot_be_compared_is_told(tmp_path, capsys):
    one = an_evaluation(tmp_path / "one", {"a": 1.0})
    other = an_evaluation(tmp_path / "other", {"b": 1.0})
    judged = an_evaluation(tmp_path / "judged", {"a": 1.0}, judge="gpt-4o")
    assert main(["evaluate", "compare", str(one), str(judged)]) == 2
    assert f"compare: judge was None in {one} and 'gpt-4o' in {judged}" in capsys.readouterr().err
    assert main(["evaluate", "compare", str(one), str(tmp_path)]) == 2
    assert f"compare: {tmp_path} holds no results.json" in capsys.readouterr().err
    assert main(["evaluate", "compare", str(one), str(other)]) == 2
    assert "have no question in common" in capsys.readouterr().err
    results = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps(results | {"benchmark": "winrate"}))
    assert main(["evaluate", "compare", str(one), str(other)]) == 2
    assert f"compare: {other} is a winrate evaluation; name a longqa one" in capsys.readouterr().err
