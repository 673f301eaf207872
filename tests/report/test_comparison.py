"""The page about two runs, and the results of a training on the report."""

import json

import pytest
import yaml
from conftest import code_questions, run_settings, write_jsonl
from test_evaluate import write_config
from test_page import Page

from lf_longpo.cli import main


@pytest.fixture
def run(stub, tmp_path):
    settings = run_settings(stub, tmp_path, write_jsonl(tmp_path / "q.jsonl", code_questions(6)))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    assert main(["generate", str(tmp_path / "c.yaml")]) == 0
    return tmp_path / "run"


def test_two_runs_are_compared_on_the_same_questions(stub, tmp_path, run, capsys):
    other = run_settings(stub, tmp_path, tmp_path / "q.jsonl")
    other |= {"output_dir": str(tmp_path / "other"), "dataset_name": "others"}
    other["longmab"]["rounds"] = 4
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    assert main(["generate", str(tmp_path / "other.yaml")]) == 0
    # The second run is right in each rollout.
    path = tmp_path / "other/rollouts.jsonl"
    write_jsonl(path, [json.loads(line) | {"reward": 2.0} for line in path.read_text().splitlines()])
    assert main(["report", str(run), str(tmp_path / "other")]) == 0
    assert str(tmp_path / "other/comparison.html") in capsys.readouterr().out
    page = Page(tmp_path / "other/comparison.html")
    assert "beyond chance: it is higher for 6 and lower for 0 questions" in page.text
    text = page.text.replace("\n", "")
    assert "data setcodesothers" in text and "questions66" in text
    assert "6 questions are in both runs" in page.text
    with_pair = [json.loads(line)["id"] for line in (run / "pairs.jsonl").read_text().splitlines()]
    assert with_pair and all(f"What is the code of place{id[1:]}?" in page.text for id in with_pair)
    assert main(["report", str(run), str(tmp_path / "other"), "--training", str(tmp_path)]) == 2


def test_a_training_joins_the_report(tmp_path, run, capsys):
    assert main(["report", str(run), "--training", str(tmp_path)]) == 2
    assert "--training" in capsys.readouterr().err
    steps = [
        {
            "step": step,
            "loss": 1 / step,
            "rewards/chosen": float(step),
            "rewards/rejected": -1.0,
            "rewards/accuracies": 0.5,
        }
        for step in (1, 2, 4)
    ]
    (tmp_path / "saves").mkdir()
    (tmp_path / "saves/trainer_state.json").write_text(json.dumps({"log_history": [*steps, {"train_loss": 1.0}]}))
    assert main(["report", str(run), "--training", str(tmp_path / "saves")]) == 0
    page = Page(run / "report.html")
    assert "The loss falls: 1.000 at the first and 0.250 at the last logged step." in page.text
    assert "chosen responses are above rejected ones (4.000 and -1.000)" in page.text


def test_a_training_is_found_by_the_data_set_of_its_recipe(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml/my_dpo.yaml").write_text("dataset: codes\noutput_dir: saves/mine\n")
    write_jsonl(
        tmp_path / "saves/mine/trainer_log.jsonl",
        [{"current_steps": step, "total_steps": 2, "loss": loss} for step, loss in ((1, 0.5), (2, 0.75))],
    )
    assert main(["report", str(run)]) == 0
    assert "The loss does not fall: 0.500 at the first and 0.750" in Page(run / "report.html").text


def test_scores_before_and_after_join_the_report(stub, tmp_path, run):
    folders = []
    for name, answer in (("before", "Answer: unknown"), ("after", "Answer: word0")):
        (tmp_path / name).mkdir()
        stub.answer = lambda prompt, seed, answer=answer: answer
        write_jsonl(tmp_path / name / "q.jsonl", code_questions(3))
        config = write_config(stub, tmp_path / name, samples=1)
        assert main(["evaluate", "longqa", str(config)]) == 0
        folders.append(str(tmp_path / name / "eval"))
    assert main(["report", str(run), "--scores", *folders]) == 0
    assert "Scores before and after" in Page(run / "report.html").text
