"""The steps of the published scripts, as a few lines each over the commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, code_questions, judged, run_settings, write_jsonl
from stub import KEY

LONGMAB = ("gen_probe", "rollout", "construct_po_data")
LONGREWARD = ("sample_responses", "get_chunk_info", "get_score", "get_pairs")


def run_script(name, folder, *arguments, **variables):
    command = ["bash", str(REPOSITORY / f"scripts/{name}.sh"), *arguments]
    environment = os.environ | {"STUB_KEY": KEY, "CONFIG": str(folder / "c.yaml")} | variables
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
def test_longmab_in_steps(stub, tmp_path):
    data = run_settings(stub, tmp_path, write_jsonl(tmp_path / "q.jsonl", code_questions(6)))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(data))
    made = []
    for script in LONGMAB:
        run_script(script, tmp_path, ROUNDS="5", START="1", END="5")
        made.append(stub.chats)
    assert made == [4, 4 + 4 * 5, 4 + 4 * 5]
    pairs = [json.loads(line) for line in (tmp_path / "data/codes.jsonl").read_text().splitlines()]
    assert {pair["id"] for pair in pairs} <= {"q1", "q2", "q3", "q4"} and pairs
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["longmab"]["rounds"] == 5


@pytest.mark.slow
def test_longreward_in_steps(stub, tmp_path):
    stub.answer = judged
    data = run_settings(stub, tmp_path, write_jsonl(tmp_path / "q.jsonl", code_questions(2)))
    del data["longmab"]
    data |= {"method": "longreward", "judge": data["policy"], "longreward": {"chunk_size": 256}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(data))
    files = ("sampled_responses", "chunk_info", "scored_responses", "pairs")
    lines = []
    for script in LONGREWARD:
        run_script(script, tmp_path, NUM_SAMPLES="5")
        paths = [tmp_path / f"run/{name}.jsonl" for name in files]
        lines.append([len(path.read_text().splitlines()) if path.exists() else 0 for path in paths])
    assert lines == [[10, 0, 0, 0], [10, 2, 0, 0], [10, 2, 10, 0], [10, 2, 10, 2]]
    assert "codes" in json.loads((tmp_path / "data/dataset_info.json").read_text())


def test_held_out_musique_questions_share_no_paragraph_with_training(tmp_path):
    def paragraph(index, text):
        return {"idx": index, "title": f"T{text}", "paragraph_text": f"Text {text}."}

    rows = [
        {
            "id": f"q{n}",
            "question_decomposition": [
                {"question": f"Town {n} >> river", "answer": f"R{n}", "paragraph_support_idx": 3}
            ],
            # Questions 0, 1 and 2 hang together by their first two paragraphs, 3 to 7 by nothing.
            "paragraphs": [
                *(paragraph(k, f"{max(n - 1, 0) + k} {'of many' if n < 3 else n}") for k in range(2)),
                *(paragraph(k, f"{k} of {n} alone") for k in range(2, 6)),
            ],
        }
        for n in range(8)
    ]
    (tmp_path / "musique.json").write_text(json.dumps(rows))
    files = tmp_path / "train.jsonl", tmp_path / "held.jsonl"
    command = ["scripts/musique_single_hop.py", tmp_path / "musique.json", files[0], "--paragraphs", "3"]
    subprocess.run([sys.executable, *command, "--held-out", files[1], "4"], check=True, cwd=REPOSITORY)
    train, held_out = ([json.loads(line) for line in path.read_text().splitlines()] for path in files)
    assert {row["id"] for row in train} >= {"q0", "q1", "q2"} and len(train) == len(held_out) == 4
    for row in (*train, *held_out):
        parts = row["context"].split("\n\n")
        assert len(parts) == 3 and sum(row["support"] in part for part in parts) == 1
        assert row["question"] == f"What is the river of Town {row['id'][1]}?"


@pytest.mark.parametrize("family", ["llama3", "qwen2", "glm4"])
def test_training_steps_hand_on_recipe_and_variables(tmp_path, family):
    (tmp_path / "longpo").write_text('#!/bin/sh\necho "$FORCE_TORCHRUN" "$@"\n')
    (tmp_path / "longpo").chmod(0o755)
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for name in ("train", f"{family}_dpo"):
        (scripts / f"{name}.sh").write_text((REPOSITORY / f"scripts/{name}.sh").read_text())
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(scripts / f"{family}_dpo.sh"), "max_steps=3"]
    printed = subprocess.run(
        command, env=os.environ | {"PATH": path, "MODEL_PATH": "my model"}, capture_output=True, text=True, check=True
    ).stdout
    assert printed.split(" ", 2)[2] == f"yaml/{family}_dpo.yaml model_name_or_path=my model max_steps=3\n"
    assert Path(REPOSITORY / f"yaml/{family}_dpo.yaml").is_file()


def test_linked_folders_of_a_checkout_are_ignored(tmp_path):
    """Environments, models and runs may lie on another disk."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text((REPOSITORY / ".gitignore").read_text())
    (tmp_path / "disk").mkdir()
    links = [".venv", "models", "runs", "saves"]
    for name in links:
        (tmp_path / name).symlink_to("disk")
    command = ["git", "-C", str(tmp_path), "check-ignore", *links, "lf_longpo/models/calls.py"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.split() == links
