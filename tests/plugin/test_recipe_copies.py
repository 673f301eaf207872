"""`longpo recipes`: what it lists, what a copy brings, and that a copy overwrites nothing."""

import json

import pytest
import yaml
from conftest import REPOSITORY

from lf_longpo.cli import main
from lf_longpo.models import embedded
from lf_longpo.plugin import recipe_copies


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def run(capsys, *arguments):
    code = main(["recipes", *arguments])
    return code, *capsys.readouterr()


def test_the_list_has_one_line_for_each_recipe(capsys):
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()]
    assert names == sorted(path.stem for path in (REPOSITORY / "yaml").glob("*.yaml"))
    assert all(len(line.split()) > 2 for line in out.splitlines())


def test_a_copy_brings_the_deepspeed_file_and_the_entry(tmp_path, capsys):
    code, out, err = run(capsys, "copy", "llama3_longreward_sft", "longqa", "new/folder")
    assert (code, err) == (0, "")
    folder = tmp_path / "new/folder"
    recipe = yaml.safe_load((folder / "yaml/llama3_longreward_sft.yaml").read_text())
    assert files(folder) == [
        "dataset_info/dataset_info.json",
        "dataset_info/dataset_info.json.lock",
        recipe["deepspeed"],
        "yaml/llama3_longreward_sft.yaml",
        "yaml/longqa.yaml",
        "yaml/schema/evaluate-longqa.json",
    ]
    for path in files(folder)[2:]:
        assert (folder / path).read_bytes() == (REPOSITORY / path).read_bytes()
    shipped = json.loads((REPOSITORY / "dataset_info/dataset_info.json").read_text())
    copied = json.loads((folder / recipe["dataset_dir"] / "dataset_info.json").read_text())
    assert copied == {recipe["dataset"]: shipped[recipe["dataset"]]}
    assert [line.split()[0] for line in out.splitlines()] == [
        "new/folder/yaml/llama3_longreward_sft.yaml",
        f"new/folder/{recipe['deepspeed']}",
        "new/folder/dataset_info/dataset_info.json:",
        "new/folder/yaml/longqa.yaml",
        "new/folder/yaml/schema/evaluate-longqa.json",
    ]


def test_what_exists_is_kept(tmp_path, capsys):
    own = {"longreward_sft": {"file_name": "own.jsonl"}, "other": {"file_name": "other.jsonl"}}
    for path, text in (
        ("yaml/deepspeed/ds_z3.json", "{}"),
        ("yaml/glm4_longreward_sft.yaml", "mine: 1\n"),
        ("dataset_info/dataset_info.json", json.dumps(own)),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    before = {path: (tmp_path / path).read_text() for path in files(tmp_path)}
    code, out, _ = run(capsys, "copy", "glm4_longreward_sft")
    assert code == 0 and out.count("(exists, kept)") == len(out.splitlines()) == 3
    assert {path: (tmp_path / path).read_text() for path in files(tmp_path)} == before


def test_entries_are_added_to_those_that_are_there(tmp_path, capsys):
    (tmp_path / "dataset_info").mkdir()
    (tmp_path / "dataset_info/dataset_info.json").write_text('{"other": {"file_name": "other.jsonl"}}')
    run(capsys, "copy", "glm4_longreward_dpo", ".")
    assert list(json.loads((tmp_path / "dataset_info/dataset_info.json").read_text())) == [
        "other",
        "longreward_dpo_glm4",
    ]


def test_the_embedded_model_is_linked_where_the_recipe_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embedded, "model_path", lambda name: tmp_path / "cache" / name)
    (tmp_path / "cache/smollm2-135m").mkdir(parents=True)
    for note in ("", "(exists, kept)"):
        _, out, _ = run(capsys, "copy", "smollm2_dpo", "here/")
        assert f"here/models/smollm2-135m {note}\n" in out
    assert (tmp_path / "here/models/smollm2-135m").resolve() == tmp_path / "cache/smollm2-135m"


def test_a_broken_registry_is_not_replaced(tmp_path, capsys):
    (tmp_path / "dataset_info").mkdir()
    (tmp_path / "dataset_info/dataset_info.json").write_text('{"half": ')
    code, _, err = run(capsys, "copy", "glm4_longreward_dpo")
    assert code == 2 and "dataset_info/dataset_info.json is not JSON" in err
    assert (tmp_path / "dataset_info/dataset_info.json").read_text() == '{"half": '


@pytest.mark.parametrize(
    ("words", "message"),
    (
        (["longqa", "smollm2_dop"], "no shipped recipe 'smollm2_dop'; did you mean smollm2_dpo?"),
        (["longqa", "zzz"], "no shipped recipe 'zzz'; run `longpo recipes` for a list"),
        (["smollm2_dpo.yaml", "out/"], "did you mean smollm2_dpo?"),
        (["out/"], "name a recipe to copy into out"),
        (["longqa", "file/below"], "file is a file; name another folder"),
    ),
)
def test_mistakes_copy_nothing(tmp_path, capsys, words, message):
    (tmp_path / "file").write_text("")
    code, out, err = run(capsys, "copy", *words)
    assert (code, out) == (2, "") and message in err
    assert files(tmp_path) == ["file"]


def test_a_recipe_goes_before_a_folder_of_its_name(tmp_path, capsys):
    (tmp_path / "needle").mkdir()
    run(capsys, "copy", "longqa", "needle")
    assert files(tmp_path) == [
        "yaml/longqa.yaml",
        "yaml/needle.yaml",
        "yaml/schema/evaluate-longqa.json",
        "yaml/schema/synthesize-needle.json",
    ]


def test_every_shipped_recipe_can_be_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "model_path", lambda name: tmp_path)
    names = list(recipe_copies.shipped_recipes())
    copied = list(recipe_copies.copy_recipes(names, tmp_path / "all"))
    assert {f"yaml/{name}.yaml" for name in names} <= {item.name for item in copied}
    for name in names:
        recipe = yaml.safe_load((tmp_path / f"all/yaml/{name}.yaml").read_text())
        assert (tmp_path / "all" / recipe.get("deepspeed", "yaml")).exists()
