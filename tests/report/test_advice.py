"""Advice about answers in Markdown and about gold answers that every output contains, from whole runs."""

import json

import pytest
from conftest import code_questions, run_settings, write_jsonl
from stub import deterministic_answer
from test_evaluate import results_of, write_config
from test_longmab_section import figures_of

from lf_longpo.cli import main
from lf_longpo.cli.generation_output import print_generation
from lf_longpo.config import GenerateConfig
from lf_longpo.generation.generate import generate


def in_markdown(prompt, seed):
    return deterministic_answer(prompt, seed).replace("Answer:", "**Answer**:")


def settings(stub, tmp_path, questions, **longmab) -> GenerateConfig:
    data = run_settings(stub, tmp_path, write_jsonl(tmp_path / "q.jsonl", questions))
    data["longmab"] |= longmab
    return GenerateConfig.model_validate(data)


@pytest.mark.slow
async def test_answers_in_markdown_are_counted_and_make_pairs_on_request(stub, tmp_path, capsys):
    stub.answer = in_markdown
    config = settings(stub, tmp_path, code_questions(6))
    summary = (await generate(config)).summary
    outputs = [json.loads(line)["output"] for line in (tmp_path / "run/rollouts.jsonl").read_text().splitlines()]
    unread = sum("**Answer**" in output for output in outputs)
    assert (summary["pairs"], summary["all_equal"], summary["unread_answers"]) == (0, 6, unread) and unread > 4
    print_generation(config, summary, "longpo generate c.yaml")
    advice = f"{unread} of 36 outputs give their answer in Markdown (such as **Answer**: X)"
    assert advice in capsys.readouterr().out
    first, *_ = figures_of(tmp_path / "run").sections()
    assert any(warning.startswith(advice) for warning in first.warnings)

    (other := tmp_path / "other").mkdir()
    config = settings(stub, other, code_questions(6), answer_form="tolerant")
    summary = (await generate(config)).summary
    assert summary["pairs"] > 2 and summary["unread_answers"] > 4
    print_generation(config, summary, "longpo generate c.yaml")
    assert "Set longmab.answer_form" not in capsys.readouterr().out
    for line in (other / "data/codes.jsonl").read_text().splitlines():
        pair = json.loads(line)
        assert pair["chosen_reward"] == 1.0 and "**Answer**" in pair["chosen"]


async def test_gold_answers_without_words_are_counted_in_generation(stub, tmp_path, capsys):
    questions = code_questions(4)
    questions[1]["answer"], questions[2]["answer"] = "The", [questions[2]["answer"], "!"]
    config = settings(stub, tmp_path, questions)
    summary = (await generate(config)).summary
    assert summary["gold_in_every_text"] == 2
    print_generation(config, summary, "longpo generate c.yaml")
    words = "Questions with a gold answer of only articles or punctuation (such as A): 2."
    assert words in capsys.readouterr().out and words in (tmp_path / "run/report.html").read_text()


def test_gold_answers_without_words_are_counted_in_evaluation(stub, tmp_path, capsys):
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
