"""The seeded demo questions, and MuSiQue as single-hop questions."""

import json
import subprocess
import sys

import pytest
from conftest import REAL_DATA, REPOSITORY

from lf_longpo.data.questions import Source, check_questions, read_questions
from lf_longpo.synthesis.demo import demo_questions, main
from lf_longpo.text.chunking import count_tokens


def test_demo_questions_are_seeded_long_and_answerable(tokenizer):
    questions = list(demo_questions(30, seed=7))
    assert questions == list(demo_questions(30, seed=7)) != list(demo_questions(30, seed=8))
    lengths = [count_tokens(question["context"], tokenizer) for question in questions]
    assert min(lengths) > 2000 and max(lengths) < 6200
    for number, question in enumerate(questions):
        assert ("neighbour" in question["question"]) == (number % 3 == 2)
        assert question["answer"] in question["context"]
    names = {name for question in questions for name in [question["question"].split(" of ")[-1]]}
    assert len(names) > 20


def test_train_and_held_out_share_no_document(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["demo", str(tmp_path), "--train", "6", "--held-out", "4"])
    main()
    train, held_out = (list(read_questions(Source(str(tmp_path / f"{name}.jsonl")))) for name in ("train", "held_out"))
    assert (len(train), len(held_out)) == (6, 4)
    assert not {question.context for question in train} & {question.context for question in held_out}


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real data is not next to the checkout")
def test_musique_becomes_single_hop_questions_with_their_support(tmp_path):
    output = tmp_path / "questions.jsonl"
    source = REAL_DATA / "musique_train_100.json"
    command = [sys.executable, "scripts/musique_single_hop.py", str(source), str(output), "--limit", "60"]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    assert len(check_questions(Source(str(output)))) == 60
    for line in output.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert row["support"] in row["context"] and ">>" not in row["question"] and "#" not in row["question"]
