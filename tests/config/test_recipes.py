"""The shipped YAML files: ours load, and what we generate is what they train on."""

import json
import re
from dataclasses import fields

import pytest
import yaml
from conftest import REPOSITORY
from recipes import FAMILIES, family_of

from lf_longpo.config import (
    EvaluateJudgeConfig,
    GenerateConfig,
    LongBenchChatConfig,
    LongBenchConfig,
    LongQAConfig,
    WinRateConfig,
)
from lf_longpo.config.loading import load_config

EVALUATIONS = {
    "longqa": LongQAConfig,
    "longbench": LongBenchConfig,
    "longbench_chat": LongBenchChatConfig,
    "winrate": WinRateConfig,
    "judge": EvaluateJudgeConfig,
}
RECIPES = sorted((REPOSITORY / "yaml").glob("*.yaml"))


@pytest.mark.parametrize(
    "path",
    [path for path in RECIPES if path.stem.endswith(("_longmab", "_longreward")) and path.stem != "smollm2_longreward"],
    ids=lambda path: path.stem,
)
def test_generation_and_training_recipes_fit_each_other(path):
    config = load_config(GenerateConfig, path)
    stem = path.stem.replace("_longmab", "_dpo").replace("_longreward", "_longreward_dpo")
    training = yaml.safe_load(path.with_stem(stem).read_text())
    released = {"llama3_longreward_dpo": "longreward_dpo_llama3", "glm4_longreward_dpo": "longreward_dpo_glm4"}
    assert training["dataset"] == released.get(stem, config.dataset_name)
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
    ("path", "kind"),
    [
        pytest.param(path, kind, id=path.stem)
        for path in RECIPES
        for ending, kind in EVALUATIONS.items()
        if path.stem.endswith(ending)
    ],
)
def test_evaluation_recipes_load(path, kind):
    load_config(kind, path)


def known_names(kinds):
    return {field.name for kind in kinds for field in fields(kind)}


TRAINING = [path for path in RECIPES if yaml.safe_load(path.read_text()).get("do_train")]
SHARED = {"lr_scheduler_type": "cosine", "warmup_steps": 0.1, "per_device_train_batch_size": 1, "bf16": True}
LONGMAB = SHARED | {
    "stage": "dpo",
    "finetuning_type": "lora",
    "lora_target": "all",
    "pref_beta": 0.1,
    "pref_loss": "sigmoid",
    "cutoff_len": 8500,
    "learning_rate": 2e-5,
    "num_train_epochs": 2.0,
    "val_size": 0.1,
}
LONGREWARD = SHARED | {"finetuning_type": "full"}
SFT = LONGREWARD | {"stage": "sft", "learning_rate": 1e-5, "num_train_epochs": 4.0, "dataset": "longreward_sft"}
DPO = LONGREWARD | {"stage": "dpo", "pref_beta": 0.15, "pref_ftx": 0.1, "learning_rate": 1e-6, "num_train_epochs": 1.0}
# GLM-4-0414 reads no more tokens; the others train on as many as the paper.
WINDOWS = dict.fromkeys(FAMILIES, 65536) | {"glm4_0414": 32768}
PUBLISHED = {
    **{f"{family}_dpo": LONGMAB | {"pref_ftx": 0.2 if family == "qwen2" else 0.1} for family in FAMILIES},
    **{f"{family}_longreward_sft": SFT | {"cutoff_len": WINDOWS[family]} for family in FAMILIES},
    **{f"{family}_longreward_dpo": DPO | {"cutoff_len": WINDOWS[family]} for family in FAMILIES},
    "llama3_longreward_dpo_128k": DPO | {"cutoff_len": 131072, "use_unsloth_gc": True},
}


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_training_recipes_hold_the_published_values_in_llamafactorys_names(path):
    from llamafactory.hparams.parser import _TRAIN_ARGS

    recipe = yaml.safe_load(path.read_text())
    assert set(recipe) <= known_names(_TRAIN_ARGS)
    if path.stem == "smollm2_dpo":
        return
    published = PUBLISHED[path.stem]
    assert {name: recipe[name] for name in published} == published
    stage = json.loads((REPOSITORY / recipe["deepspeed"]).read_text())["zero_optimization"]["stage"]
    assert stage == (2 if recipe["finetuning_type"] == "lora" else 3)
    if recipe["finetuning_type"] == "full":  # on the 8 GPUs that the header names
        assert 8 * recipe["gradient_accumulation_steps"] == {"sft": 8, "dpo": 16}[recipe["stage"]]
    assert recipe.get("ref_model", recipe["model_name_or_path"]) == recipe["model_name_or_path"]


def test_every_family_has_every_recipe():
    kinds = ["dpo", "export", "longmab", "longreward", "longreward_dpo", "longreward_sft", "serve"]
    templates = {"llama3": "llama3", "qwen2": "qwen", "glm4": "glm4", "qwen3": "qwen3_nothink", "glm4_0414": "glm4"}
    assert templates.keys() == set(FAMILIES)
    for family, template in templates.items():
        recipes = {path.stem.removeprefix(f"{family}_"): path for path in RECIPES if family_of(path) == family}
        assert sorted(recipes) == sorted(kinds + (["longreward_dpo_128k"] if family == "llama3" else []))
        loaded = {kind: yaml.safe_load(path.read_text()) for kind, path in recipes.items()}
        for kind, recipe in loaded.items():
            assert recipe.get("template") == (None if kind in ("longmab", "longreward") else template)
        assert loaded["export"]["adapter_name_or_path"] == loaded["dpo"]["output_dir"]
        assert loaded["serve"]["model_name_or_path"] == loaded["export"]["export_dir"]
        assert loaded["longreward_dpo"]["model_name_or_path"] == loaded["longreward_sft"]["output_dir"]
        for path in recipes.values():
            header = path.read_text().split("\n\n")[0]
            assert f"yaml/{path.name}" in header


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_short_opens_with_how_to_launch_it_and_explains_every_setting(path):
    text = path.read_text()
    header, *body = re.sub(r"^# yaml-language-server: .*\n", "", text).split("\n\n")
    assert all(line.startswith("### ") for line in header.splitlines())
    assert "\n### Launch: " in header and "\n### Override: " in header
    lines = text.splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 120
    settings = [line for line in "\n".join(body).splitlines() if line and not line.lstrip().startswith("#")]
    sections = r"\s*[a-z_]+:( [&*]\w+)?"
    assert [line for line in settings if "# " not in line and not re.fullmatch(sections, line)] == []


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.stem.endswith(("_export", "_serve"))], ids=lambda path: path.stem
)
def test_export_and_serving_recipes_use_llamafactorys_names(path):
    from llamafactory.hparams.parser import _INFER_ARGS

    assert set(yaml.safe_load(path.read_text())) <= known_names(_INFER_ARGS)
