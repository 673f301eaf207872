"""`longpo init`: recipes of a method for models that LLaMA-Factory knows, read by those that they are for."""

import json
from dataclasses import fields

import pytest
import yaml

from lf_longpo.cli import main
from lf_longpo.config import GenerateConfig, LongBenchConfig, LongQAConfig
from lf_longpo.config.loading import load_config
from lf_longpo.plugin.recipe import parse_recipe, read_recipe

# One model of each family of recipes, and one that thinks.
MODELS = {
    "meta-llama/Meta-Llama-3.1-8B-Instruct": "llama3",
    "Qwen/Qwen2.5-7B-Instruct": "qwen",
    "zai-org/glm-4-9b-chat": "glm4",
    "Qwen/Qwen3-4B-Instruct-2507": "qwen3_nothink",
    "zai-org/GLM-4-9B-0414": "glm4",
    "Qwen/Qwen3-8B": "qwen3",
}


@pytest.fixture
def init(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(model, method="longmab", *more):
        return main(["init", "--model", model, "--method", method, *more])

    return run


@pytest.mark.parametrize("method", ["longmab", "longreward"])
@pytest.mark.parametrize("model", MODELS)
def test_every_family_gets_recipes_that_fit_each_other(init, tmp_path, model, method):
    from llamafactory.hparams.parser import _INFER_ARGS

    assert init(model, method) == 0
    (generate,) = tmp_path.glob(f"*_{method}.yaml")
    prefix = generate.name.removesuffix(f"_{method}.yaml")
    config = load_config(GenerateConfig, generate)
    assert (config.policy.model, config.tokenizer, config.pairs.template) == (model, model, MODELS[model])
    assert config.policy.thinking_tokens == (4096 if MODELS[model] == "qwen3" else 0)
    train = f"{prefix}_dpo.yaml" if method == "longmab" else f"{prefix}_longreward_dpo.yaml"
    recipe = read_recipe(train)
    assert (recipe["model_name_or_path"], recipe["template"]) == (model, MODELS[model])
    assert (recipe["dataset"], recipe["cutoff_len"]) == (config.dataset_name, config.pairs.cutoff_len)
    stage = json.loads((tmp_path / recipe.pop("deepspeed")).read_text())["zero_optimization"]["stage"]
    assert stage == {"longmab": 2, "longreward": 3}[method]  # DeepSpeed's settings need a launcher to be parsed
    parsed = parse_recipe(recipe | {"use_cpu": True})
    assert parsed.finetuning.finetuning_type == {"longmab": "lora", "longreward": "full"}[method]

    serve = yaml.safe_load((tmp_path / f"{prefix}_serve.yaml").read_text())
    assert set(serve) <= {field.name for kind in _INFER_ARGS for field in fields(kind)}
    trained = recipe["output_dir"]
    if method == "longmab":
        export = yaml.safe_load((tmp_path / f"{prefix}_export.yaml").read_text())
        assert export["adapter_name_or_path"] == trained
        trained = export["export_dir"]
    assert (serve["model_name_or_path"], serve["template"]) == (trained, MODELS[model])
    benchmark, kind = {"longmab": ("longqa", LongQAConfig), "longreward": ("longbench", LongBenchConfig)}[method]
    assert load_config(kind, tmp_path / f"{prefix}_{benchmark}.yaml").model.model == model


@pytest.mark.parametrize("method", ["longmab", "longreward"])
def test_nothing_of_the_shipped_model_is_left(init, tmp_path, method, capsys):
    assert init("microsoft/phi-4", method) == 0
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    for name in ("qwen", "yaml/", "Llama", "longreward_sft", "arXiv"):
        assert name.lower() not in text.lower().replace("llama-factory", "").replace("llamafactory", "")
    for path in tmp_path.glob("*.yaml"):
        assert f" {path.name}" in path.read_text().split("\n\n")[0]
    printed = capsys.readouterr().out
    assert "Set `input` in phi_4_" in printed and f"longpo generate phi_4_{method}.yaml\n" in printed


def test_an_existing_file_ends_it_with_nothing_written(init, tmp_path, capsys):
    (tmp_path / "qwen3_8b_serve.yaml").write_text("mine")
    assert init("Qwen/Qwen3-8B") == 2
    assert "qwen3_8b_serve.yaml exists, and nothing was written; move it away" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_that_cannot_be_written_leaves_none(init, tmp_path, monkeypatch, capsys):
    from lf_longpo.plugin import recipe_set

    shipped = recipe_set._shipped

    def without_the_last(name):
        text = shipped(name)
        return "\ud800" if name.startswith("deepspeed") else text  # half a character, as a full disk would stop it

    monkeypatch.setattr(recipe_set, "_shipped", without_the_last)
    with pytest.raises(UnicodeEncodeError):
        init("Qwen/Qwen3-8B")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_names_the_fix_and_a_given_template_is_taken(init, tmp_path, capsys):
    assert init("meta-llama/Llama-3.1-8B-Instruct") == 2
    error = capsys.readouterr().err
    assert "has no template for meta-llama/Llama-3.1-8B-Instruct; add --template NAME, such as llama3" in error
    assert init("Qwen/Qwen3-8B-Base") == 2  # base models have none
    assert init("saves/mine", "longmab", "--template", "lama3") == 2
    assert "--template: LLaMA-Factory has no template lama3; name one that it has, such as llama3" in (
        capsys.readouterr().err
    )
    assert init("/", "longmab", "--template", "llama3") == 2
    assert list(tmp_path.iterdir()) == []
    assert init("saves/mine", "longmab", "--template", "llama3") == 0
    assert read_recipe("mine_dpo.yaml")["template"] == "llama3"
