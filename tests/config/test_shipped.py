"""Shipped recipes by name, in a checkout; tests/test_package.py does the same with a wheel."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

from lf_longpo.config import GenerateConfig, shipped
from lf_longpo.config.loading import load_config
from lf_longpo.config.shipped import resolve, shipped_recipes, shown, summary


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ("smollm2_dpo", "yaml/smollm2_dpo.yaml"))
def test_a_shipped_recipe_is_found_in_any_working_directory(elsewhere, name):
    assert resolve(name) == REPOSITORY / "yaml/smollm2_dpo.yaml"


def test_a_shipped_recipe_is_shown_by_its_name(elsewhere):
    assert shown(resolve("smollm2_dpo")) == "smollm2_dpo"
    for path in ("yaml/smollm2_dpo.yaml", "own.yaml"):
        assert shown(Path(path)) == path


def test_a_deepspeed_file_is_found_in_any_working_directory(elsewhere):
    assert json.loads(resolve("yaml/deepspeed/ds_z2.json").read_text())["zero_optimization"]["stage"] == 2


def test_a_file_goes_before_a_shipped_recipe_and_a_folder_does_not(elsewhere):
    Path("needle").mkdir()
    Path("smollm2_dpo").write_text("mine: 1")
    assert resolve("smollm2_dpo") == Path("smollm2_dpo")
    assert resolve("needle") == REPOSITORY / "yaml/needle.yaml"


@pytest.mark.parametrize(
    "name", ("smollm", "yaml/none.yaml", "README.md", "yaml", "../setup.py", "deepspeed/ds_z2.json")
)
def test_other_names_stay_as_they_are(elsewhere, name):
    assert resolve(name) == Path(name)


def test_copies_inside_the_package_go_before_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_COPIES", tmp_path)
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml/tiny.yaml").write_text("### What it makes: one row.\n### More.\n")
    assert shipped_recipes() == {"tiny": tmp_path / "yaml/tiny.yaml"}
    assert summary(resolve("tiny")) == "one row."


def test_every_recipe_has_a_summary():
    assert len(shipped_recipes()) > 30
    for path in shipped_recipes().values():
        assert len(summary(path)) > 10 and not summary(path).startswith(("#", "What it"))


def test_a_summary_is_the_first_line_of_the_header(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("# yaml-language-server: $schema=s.json\n### What it trains: a model.\n### Assumes: a GPU.\n")
    assert summary(recipe) == "a model."
    recipe.write_text("stage: dpo\n")
    assert summary(recipe) == ""


def test_a_configuration_loads_by_name_as_by_its_file(elsewhere):
    by_file = load_config(GenerateConfig, REPOSITORY / "yaml/smollm2_longmab.yaml", ["longmab.rounds=3"])
    assert load_config(GenerateConfig, "smollm2_longmab", ["longmab.rounds=3"]) == by_file


def test_a_recipe_finds_its_deepspeed_file_in_any_working_directory(elsewhere):
    from lf_longpo.plugin.recipe import read_recipe

    settings = read_recipe(resolve("llama3_dpo"))
    named = yaml.safe_load((REPOSITORY / "yaml/llama3_dpo.yaml").read_text())
    assert settings.pop("deepspeed") == str(REPOSITORY / named.pop("deepspeed"))
    assert settings == named
