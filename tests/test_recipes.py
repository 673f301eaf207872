"""The shipped YAML files: ours load, and what we generate is what they train on."""

import json

import pytest
import yaml
from conftest import REPOSITORY

from lf_longpo.config import GenerateConfig, LongQAConfig
from lf_longpo.config_file import load_config

RECIPES = sorted((REPOSITORY / "yaml").glob("*.yaml"))


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.stem.endswith("_longmab")], ids=lambda path: path.stem
)
def test_generation_and_training_recipes_fit_each_other(path):
    config = load_config(GenerateConfig, path)
    training = yaml.safe_load(path.with_stem(path.stem.replace("_longmab", "_dpo")).read_text())
    assert training["dataset"] == config.dataset_name
    assert training["template"] == config.pairs.template
    assert training["cutoff_len"] == config.pairs.cutoff_len
    assert training["dataset_dir"] == str(config.dataset_dir)


def test_the_small_longreward_recipe_fits_the_small_training_recipe():
    config = load_config(GenerateConfig, REPOSITORY / "yaml/smollm2_longreward.yaml")
    training = yaml.safe_load((REPOSITORY / "yaml/smollm2_dpo.yaml").read_text())
    assert (training["template"], training["cutoff_len"]) == (config.pairs.template, config.pairs.cutoff_len)
    assert config.judge == config.policy  # or the model is loaded twice
    quickstart = (REPOSITORY / "scripts/quickstart.sh").read_text()
    assert config.dataset_name == "smollm2_longreward_dpo" and "smollm2_${method}_dpo" in quickstart


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.stem.endswith("_longqa")], ids=lambda path: path.stem
)
def test_evaluation_recipes_load(path):
    load_config(LongQAConfig, path)


@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem.endswith("_dpo")], ids=lambda path: path.stem)
def test_training_recipes_hold_the_published_values_in_llamafactorys_names(path):
    from dataclasses import fields

    from llamafactory.hparams.parser import _TRAIN_ARGS

    recipe = yaml.safe_load(path.read_text())
    known = {field.name for kind in _TRAIN_ARGS for field in fields(kind)}
    assert set(recipe) <= known
    if path.stem != "smollm2_dpo":
        published = {
            "finetuning_type": "lora",
            "lora_target": "all",
            "pref_beta": 0.1,
            "pref_loss": "sigmoid",
            "pref_ftx": {"llama3": 0.1, "qwen": 0.2}[recipe["template"]],
            "cutoff_len": 8500,
            "learning_rate": 2e-5,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.1,
            "num_train_epochs": 2.0,
            "per_device_train_batch_size": 1,
            "bf16": True,
            "val_size": 0.1,
        }
        assert {name: recipe[name] for name in published} == published
        assert json.loads((REPOSITORY / recipe["deepspeed"]).read_text())["zero_optimization"]["stage"] == 2
