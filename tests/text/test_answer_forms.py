"""Answers in other forms than the published one, and gold answers that say nothing."""

import json
from contextlib import closing

import pytest
from conftest import code_questions, run_settings, write_jsonl
from stub import deterministic_answer
from test_evaluate import results_of, write_config

from lf_longpo.cli import main
from lf_longpo.cli.reporting import print_generation
from lf_longpo.config import GenerateConfig
from lf_longpo.generation.generate import generate
from lf_longpo.report.longmab_section import longmab_sections
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.text.answers import (
    extract_answer,
    has_unread_answer,
    is_in_every_text,
    pair_reward,
    rollout_reward,
    sub_exact_match,
)


@pytest.mark.parametrize(
    "output",
    [
        "**Answer**: Rhine",
        "### Answer\nRhine",
        "### Final Answer\n\nRhine",
        "**Answer**\nRhine",
        "Reasoning：…\nAnswer：Rhine",
        "Answer : Rhine",
        "`Answer`: Rhine",
        "__Answer__: Rhine",
        "答案：Rhine",
        "**答案是**：Rhine",
    ],
)
def test_labels_in_markdown_are_read_on_request_only(output):
    assert extract_answer(output)[1] is False and pair_reward(output, "Rhine") == 0.0
    assert extract_answer(output, "tolerant") == ("rhine", True) and has_unread_answer(output)
    assert pair_reward(output, "Rhine", "tolerant") == rollout_reward(output, "Rhine", "tolerant") == 1.0


@pytest.mark.parametrize(
    "output",
    ["Answer: Rhine", "**Answer:** Rhine", "No idea.", "### Answer", "The answers are many.", "", "**Answer**:"],
)
def test_what_the_published_rule_reads_or_nobody_does_is_read_alike(output):
    assert extract_answer(output, "tolerant") == extract_answer(output) and not has_unread_answer(output)


@pytest.mark.parametrize("gold", ["A", "The", "!", ["Bern", "an"], "a the ..."])
def test_a_gold_answer_of_articles_or_marks_is_in_every_text(gold):
    assert is_in_every_text(gold) and sub_exact_match("Anything.", gold) == 1.0


def test_a_gold_answer_with_a_word_is_not():
    assert not any(map(is_in_every_text, ("B", "a B", "是", ["Bern", "Thun"], "5")))


def in_markdown(prompt, seed):
    return deterministic_answer(prompt, seed).replace("Answer:", "**Answer**:")


def settings(stub, tmp_path, questions, **longmab) -> GenerateConfig:
    data = run_settings(stub, tmp_path, write_jsonl(tmp_path / "q.jsonl", questions))
    data["longmab"] |= longmab
    return GenerateConfig.model_validate(data)


async def test_answers_in_markdown_are_counted_and_make_pairs_on_request(stub, tmp_path, capsys):
    stub.answer = in_markdown
    config = settings(stub, tmp_path, code_questions(6))
    summary = (await generate(config)).summary
    outputs = [json.loads(line)["output"] for line in (tmp_path / "run/rollouts.jsonl").read_text().splitlines()]
    unread = sum("**Answer**" in output for output in outputs)
    assert (summary["pairs"], summary["all_equal"], summary["unread_answers"]) == (0, 6, unread) and unread > 4
    print_generation(config, summary)
    advice = f"{unread} of 36 outputs give their answer in Markdown (such as **Answer**: X)"
    assert advice in capsys.readouterr().out
    with closing(RunFolder(tmp_path / "run")) as run:
        assert any(warning.startswith(advice) for warning in longmab_sections(run)[0].warnings)

    (other := tmp_path / "other").mkdir()
    config = settings(stub, other, code_questions(6), answer_form="tolerant")
    summary = (await generate(config)).summary
    assert summary["pairs"] > 2 and summary["unread_answers"] > 4
    print_generation(config, summary)
    assert "Set longmab.answer_form" not in capsys.readouterr().out
    for line in (other / "data/codes.jsonl").read_text().splitlines():
        pair = json.loads(line)
        assert pair["chosen_reward"] == 1.0 and "**Answer**" in pair["chosen"]


async def test_gold_answers_that_say_nothing_are_counted_in_generation(stub, tmp_path, capsys):
    questions = code_questions(4)
    questions[1]["answer"], questions[2]["answer"] = "The", [questions[2]["answer"], "!"]
    config = settings(stub, tmp_path, questions)
    summary = (await generate(config)).summary
    assert summary["gold_in_every_text"] == 2
    print_generation(config, summary)
    words = "Questions with a gold answer of only articles or punctuation (such as A): 2."
    assert words in capsys.readouterr().out and words in (tmp_path / "run/report.html").read_text()


def test_gold_answers_that_say_nothing_are_counted_in_evaluation(stub, tmp_path, capsys):
    rows = [
        {"id": id, "question": "Which is right?", "answer": gold, "context": "Option A: Thun. Option B: Bern."}
        for id, gold in (("1", "A"), ("2", "B"))
    ]
    stub.answer = lambda prompt, seed: "**Answer**: C"
    config = write_config(stub, tmp_path, samples=1)
    write_jsonl(tmp_path / "q.jsonl", rows)
    assert main(["evaluate", "longqa", config]) == 0
    results = results_of(tmp_path)
    assert (results["gold_in_every_text"], results["unread_answers"]) == (1, 2)
    assert results["by_question"]["q"]["1"]["sub_em_output"] == 1.0  # the published value
    told = capsys.readouterr().out
    assert "a gold answer of only articles or punctuation (such as A): 1." in told
    assert "2 outputs give their answer in Markdown" in told
