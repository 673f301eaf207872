"""Overrides on the command line: one grammar for our settings and for LLaMA-Factory's recipes."""

import sys

import pytest

from lf_longpo.config import GenerateConfig, LongMabConfig
from lf_longpo.config.loading import load_config, read_settings
from lf_longpo.config.overrides import apply_overrides, parse_override
from lf_longpo.config.yaml_text import dump_yaml, parse_yaml
from lf_longpo.errors import UserError
from lf_longpo.plugin.recipe import read_recipe

RECIPE = """
model_name_or_path: org/model
learning_rate: 1e-5
warmup_steps: 1_000
pref_beta: 2.5E-1
run_name: 2026-01-05
deepspeed:
  # stage: 2
trust: {x: 1, y: {z: 2}}
freeze: [a, b]
bf16: yes
"""
VALUES = {
    "1e-5": 1e-5, "1e5": 1e5, "-1.5E+3": -1500.0, "+2e0": 2.0, "8": 8, "0.5": 0.5, "1e": "1e", "e5": "e5",
    "'1e5'": "1e5", "2026-01-05": "2026-01-05", "true": True, "null": None, "": None, "a=b": "a=b",
    "[1e3, x]": [1e3, "x"], "{a: 1e3}": {"a": 1e3}, ".inf": float("inf"), "1:30": 90,
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize("text", VALUES)
def test_values_are_the_same_in_settings_in_recipes_and_in_llamafactory(recipe, text, monkeypatch):
    from llamafactory.hparams.parser import read_args

    settings = read_settings(recipe)
    apply_overrides(settings, [f"key={text}"])
    monkeypatch.setattr(sys, "argv", ["train", str(recipe), f"key={text}"])
    expected = VALUES[text]
    for value in (settings["key"], read_recipe(recipe, [f"key={text}"])["key"], read_args()["key"]):
        assert value == expected and type(value) is type(expected)
    assert parse_yaml(f"key: {text}") == {"key": expected}  # and in a file


@pytest.mark.parametrize(
    "overrides",
    [
        [], ["learning_rate=5e-6"], ["deepspeed.stage=3"], ["trust.x=9"], ["trust.y.z=9"], ["trust={w: 3}"],
        ["trust={a: 1}", "trust={b: 2}"], ["trust=null", "trust.x=2"], ["freeze=[c]"], ["run_name.x=1"], ["a.b.c=1e3"],
        ["bf16="],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_recipe_is_what_llamafactory_reads(recipe, overrides, monkeypatch):
    from llamafactory.hparams.parser import read_args

    monkeypatch.setattr(sys, "argv", ["train", str(recipe), *overrides])
    assert read_recipe(recipe, overrides) == read_args()


def test_values_of_a_recipe(recipe):
    settings = read_recipe(recipe, ["learning_rate=5e-6", "deepspeed.stage=3", "trust.y.z=[1]"])
    assert settings["learning_rate"] == 5e-6 and settings["pref_beta"] == 0.25 and settings["warmup_steps"] == 1000
    assert settings["deepspeed"] == {"stage": 3} and settings["trust"] == {"x": 1, "y": {"z": [1]}}


def test_references_in_a_recipe_follow_overrides(recipe):
    recipe.write_text(RECIPE + "output_dir: saves/${run_name}\n")
    assert read_recipe(recipe, ["run_name=x"])["output_dir"] == "saves/x"
    recipe.write_text(RECIPE + "output_dir: saves/${no_such_key}\n")
    with pytest.raises(UserError, match=r"recipe\.yaml cannot be used: .*no_such_key"):
        read_recipe(recipe)


def test_a_section_of_comments_has_its_defaults_and_takes_overrides(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "method: longmab\ninput: q.jsonl\noutput_dir: run\ndataset_name: d\npolicy: {model: m}\n"
        "longmab:\n  # rounds: 30\npairs:\n  # template: llama3\n"
    )
    assert load_config(GenerateConfig, path, ["pairs.template=qwen"]).longmab == LongMabConfig()
    config = load_config(GenerateConfig, path, ["pairs.template=qwen", "longmab.sampling.top_p=5e-1", "max_cost=null"])
    assert config.longmab.sampling.top_p == 0.5 and config.longmab.rounds == 30
    with pytest.raises(UserError, match=r"c\.yaml: pairs\.template is missing; set it"):
        load_config(GenerateConfig, path)


@pytest.mark.parametrize("override", ["rounds", "=3", "--rounds=3", "-r=3"])
def test_other_forms_are_refused_everywhere(recipe, override):
    for read in (parse_override, lambda text: read_recipe(recipe, [text]), lambda text: apply_overrides({}, [text])):
        with pytest.raises(UserError, match=r"must have the form key=value, as in longmab\.rounds=8"):
            read(override)


def test_a_value_that_is_not_yaml_is_refused(recipe):
    with pytest.raises(UserError, match=r"override 'a=\[': '\[' is not a YAML value; quote it"):
        read_recipe(recipe, ["a=["])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n\tc: 2", "line 3: a tab cannot indent a line; use spaces"),
        ("a: 1\nb: 2\na: 3", "line 3: the key a is repeated; remove one of the two"),
        ("a: b: c", "line 1: mapping values are not allowed here"),
    ],
)
def test_bad_yaml_is_one_line_with_its_line_number(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    for read in (read_settings, read_recipe):
        with pytest.raises(UserError) as error:
            read(path)
        assert str(error.value) == f"{path} is not YAML: {message}"


@pytest.mark.parametrize("text", ["1e5", "-1.5E+3", "2026-01-05", "null", "a: b", "1", "ü\n", "\t", 1e-7, 1e22, None])
def test_what_is_written_is_read_again(text):
    assert parse_yaml(dump_yaml({"key": text})) == {"key": text}
