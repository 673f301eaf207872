"""Commands about a run find its data set, its decisions and its input from any working directory."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import code_questions, run_settings, write_jsonl
from test_generate import rows

from lf_longpo.cli import main
from lf_longpo.config import GenerateConfig
from lf_longpo.data.review import Decision, Reviews
from lf_longpo.export.run_responses import answered_questions
from lf_longpo.generation.generate import generate
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.run_folder.pair_sets import find_pair_set

OUTPUTS = {"within": "runs/x", "absolute": "{home}/runs/x", "outside": "../x"}


def reject_first(run, dataset_dir):
    """As the viewer does: decides about the first registered pair of a run."""
    from lf_longpo.data.review import pair_digest

    viewed = find_pair_set(str(run), dataset_dir)
    first = rows(viewed.path)[0]
    reviews = Reviews(viewed.decisions)
    reviews.decide(pair_digest(first, viewed.columns), first["id"], Decision("reject"))
    reviews.close()
    return first["id"]


@pytest.mark.slow
@pytest.mark.parametrize("output", OUTPUTS)
async def test_decisions_of_a_run_are_found_from_elsewhere(stub, tmp_path, monkeypatch, output):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_jsonl(home / "q.jsonl", code_questions(6))
    (home / "asked.txt").write_text("{context}\nQuestion: {question}\n")
    monkeypatch.chdir(home)
    data = run_settings(stub, home, "q.jsonl")
    data |= {"output_dir": OUTPUTS[output].format(home=home), "dataset_dir": "data"}
    if output == "within":
        data["longmab"]["prompt"] = "asked.txt"
    await generate(GenerateConfig.model_validate(data))
    run, pairs = Path(data["output_dir"]).resolve(), rows(home / "data/codes.jsonl")

    monkeypatch.chdir(elsewhere)
    rejected = reject_first(run, Path("dataset_info"))
    assert (home / "data/codes.review.jsonl").is_file() and not list(elsewhere.iterdir())
    monkeypatch.chdir(home)
    for place, name in ((home, data["output_dir"]), (elsewhere, str(run)), (elsewhere, f"{home}/data/codes.jsonl")):
        monkeypatch.chdir(place)
        register = ["register", name, "--reviewed", "--name", "fine", "--dataset-dir", str(tmp_path / "fine")]
        assert main([*register, "--overwrite"]) == 0
        left = rows(tmp_path / "fine/fine.jsonl")
        assert [row["id"] for row in left] == [row["id"] for row in pairs if row["id"] != rejected]
    # So are the contexts and prompts of its questions.
    assert {one.id for one in answered_questions(RunFolder(run))} == {f"q{number}" for number in range(6)}


@pytest.mark.slow
async def test_a_project_that_was_moved_keeps_its_runs_and_decisions(stub, tmp_path, monkeypatch):
    home, moved = tmp_path / "home", tmp_path / "deep/down/moved"
    write_jsonl(home / "q.jsonl", code_questions(3))
    monkeypatch.chdir(home)
    data = run_settings(stub, home, "q.jsonl") | {"output_dir": "runs/x", "dataset_dir": "data"}
    await generate(GenerateConfig.model_validate(data))
    rejected = reject_first("runs/x", Path("data"))
    moved.parent.mkdir(parents=True)
    home.rename(moved)
    monkeypatch.chdir(tmp_path)
    viewed = find_pair_set("deep/down/moved/runs/x", Path("dataset_info"))
    assert viewed.path == moved / "data/codes.jsonl"
    assert [decision.verdict for decision in Reviews(viewed.decisions).all().values()] == ["reject"]
    assert json.loads(viewed.decisions.read_text())["id"] == rejected
    assert len(list(answered_questions(viewed.run))) == 3


@pytest.mark.slow
async def test_decisions_about_a_copied_or_renamed_run_land_where_they_belong(stub, tmp_path, monkeypatch):
    home = tmp_path / "home"
    write_jsonl(home / "q.jsonl", code_questions(6))
    monkeypatch.chdir(home)
    data = run_settings(stub, home, "q.jsonl") | {"output_dir": "runs/x", "dataset_dir": "data"}
    await generate(GenerateConfig.model_validate(data))
    config = (home / "runs/x/config.yaml").read_text()

    def outside(copy):
        return sorted(path for path in tmp_path.rglob("*") if copy not in path.parents)

    monkeypatch.chdir(tmp_path)
    for number, (output, name) in enumerate([("x", "x"), ("runs/x", "runs/x"), ("runs/x", "deep/down/copied")]):
        copy = tmp_path / f"elsewhere{number}/there" / name
        shutil.copytree(home / "runs/x", copy)
        (copy / "config.yaml").write_text(config.replace("output_dir: runs/x", f"output_dir: {output}"))
        before = outside(copy)
        reject_first(str(copy), Path("data"))
        assert (copy / "codes.review.jsonl").is_file() and outside(copy) == before
        # They are found again from the folder itself.
        monkeypatch.chdir(copy)
        assert len(Reviews(find_pair_set(".", Path("data")).decisions).all()) == 1
        monkeypatch.chdir(tmp_path)

    reject_first("home/runs/x", Path("data"))
    (home / "runs/x").rename(home / "runs/y")
    viewed = find_pair_set("home/runs/y", Path("data"))
    assert viewed.path == home / "data/codes.jsonl" and len(Reviews(viewed.decisions).all()) == 1
