"""What a recipe needs before it starts: optional packages, models, and the right command for its file."""

import importlib.metadata
import inspect
import json
import re
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, write_jsonl

from lf_longpo.cli import main
from lf_longpo.plugin.check import packages
from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.check.packages import missing_packages
from lf_longpo.plugin.check.prerequisites import check_prerequisites
from lf_longpo.plugin.check.recipe_check import check

RECIPES = sorted((REPOSITORY / "yaml").glob("*.yaml"))


@pytest.fixture
def nothing_installed(monkeypatch):
    """No optional package is installed, whatever this machine has."""

    def version(name):
        if name in ("transformers", "trl"):
            return importlib.metadata.version(name)
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "version", version)


def at(setting, what, command, instead):
    return f"{setting}: {what}; {command}, or {instead}"


def run(command):
    return f"run `pip install {command}`"


NEEDS = {
    "liger": (
        {"enable_liger_kernel": True},
        at(
            "enable_liger_kernel",
            "liger-kernel is not installed",
            run("-e '.[liger]'"),
            "set enable_liger_kernel: false",
        ),
    ),
    "deepspeed": (
        {"deepspeed": "yaml/deepspeed/ds_z2.json"},
        at("deepspeed", "deepspeed is not installed", run("-e '.[deepspeed]'"), "set deepspeed: null"),
    ),
    "quantization": (
        {"quantization_bit": 4},
        at(
            "quantization_bit",
            "bitsandbytes is not installed",
            run("'bitsandbytes>=0.39.0'"),
            "set quantization_bit: null",
        ),
    ),
    "another quantization": (
        {"quantization_bit": 4, "quantization_method": "hqq"},
        at("quantization_bit", "hqq is not installed", run("hqq"), "set quantization_bit: null"),
    ),
    "several packages": (
        {"predict_with_generate": True},
        at(
            "predict_with_generate",
            "jieba is not installed and nltk is not installed and rouge_chinese is not installed",
            run("jieba nltk rouge_chinese"),
            "set predict_with_generate: false",
        ),
    ),
    "version": (
        {"shift_attn": True},
        at(
            "shift_attn",
            f"transformers>=4.45.0,<4.48.0 is needed, not {importlib.metadata.version('transformers')}",
            "install it in an environment without lf-longpo",
            "set shift_attn: false",
        ),
    ),
    "tracker": (
        {"report_to": ["wandb"]},
        at("report_to", "wandb is not installed", run("wandb"), "set report_to: none"),
    ),
    "optimizer": (
        {"optim": "paged_adamw_8bit"},
        at("optim", "bitsandbytes is not installed", run("bitsandbytes"), "set optim: adamw_torch"),
    ),
    "backend": (
        {"infer_backend": "sglang"},
        at("infer_backend", "sglang is not installed", run("'sglang>=0.4.5'"), "set infer_backend: huggingface"),
    ),
}


@pytest.mark.parametrize(("settings", "expected"), NEEDS.values(), ids=NEEDS)
def test_a_missing_package_is_an_error_with_its_command(nothing_installed, settings, expected):
    (missing,) = missing_packages(settings)
    assert f"{missing.setting}: {missing.message}" == expected and not missing.falls_back


def test_flash_attention_is_a_warning_because_llamafactory_falls_back(nothing_installed):
    findings = Findings()
    check_prerequisites("recipe.yaml", {"model_name_or_path": "org/x", "flash_attn": "fa2"}, findings)
    assert findings.errors == []
    ((setting, message),) = findings.warnings
    assert setting == "flash_attn" and message == (
        "flash-attn is not installed: training falls back to PyTorch's attention, which takes more memory where rows "
        "are padded; run `pip install flash-attn --no-build-isolation`, or set flash_attn: auto"
    )


VLLM = {
    "ours": ("0.25.1", "vllm 0.25.1"),
    "one that LLaMA-Factory accepts": ("0.11.0", None),
    "not installed": (None, "the vllm of lf-longpo's extra"),
}


@pytest.mark.parametrize(("installed", "named"), VLLM.values(), ids=VLLM)
def test_a_server_on_our_vllm_needs_the_check_of_versions_switched_off(monkeypatch, installed, named):
    def version(name):
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(packages, "version", version)
    monkeypatch.delenv("DISABLE_VERSION_CHECK", raising=False)
    settings = {"model_name_or_path": "org/x", "infer_backend": "vllm"}
    findings = Findings()
    check_prerequisites("yaml/llama3_serve.yaml", settings, findings)
    assert [where for where, _ in findings.errors] == ([] if installed else ["infer_backend"])
    message = (
        f"LLaMA-Factory's check of versions does not accept {named}; start it with `DISABLE_VERSION_CHECK=1 "
        "llamafactory-cli api yaml/llama3_serve.yaml`"
    )
    assert findings.warnings == ([("infer_backend", message)] if named else [])
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    findings = Findings()
    check_prerequisites("yaml/llama3_serve.yaml", settings, findings)
    assert findings.warnings == []


def test_the_check_of_versions_that_llamafactory_makes_of_vllm_is_known():
    from llamafactory.hparams import parser

    assert f'check_version("vllm{packages._VLLM}")' in inspect.getsource(parser._check_extra_dependencies)


def test_ray_is_asked_for_by_a_variable(nothing_installed, monkeypatch):
    assert missing_packages({}) == []
    monkeypatch.setenv("USE_RAY", "1")
    (missing,) = missing_packages({})
    assert missing.setting == "USE_RAY" and missing.message == (
        "ray is not installed; run `pip install -e '.[ray]'`, or unset USE_RAY in the environment"
    )


def test_a_quantized_model_needs_its_package(nothing_installed, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "awq"}}))
    (missing,) = missing_packages({"model_name_or_path": str(tmp_path)})
    assert missing.message.startswith("autoawq is not installed; run `pip install autoawq --no-build-isolation`, or")


def test_what_is_off_or_installed_is_not_missing():
    off = {"enable_liger_kernel": False, "deepspeed": None, "report_to": "none", "optim": "adamw_torch"}
    assert missing_packages(off | {"plot_loss": True}) == []


def test_every_package_that_llamafactory_asks_for_is_known():
    """LLaMA-Factory's source, without its web interface and its next generation, which recipes do not reach."""
    folder = Path(find_spec("llamafactory").submodule_search_locations[0])
    texts = [path.read_text() for path in folder.rglob("*.py") if not {"v1", "webui"} & set(path.parts)]
    asked = {name for text in texts for name in re.findall(r'check_version\(\s*"([\w-]+)', text)}
    known = (REPOSITORY / "lf_longpo/plugin/check/packages.py").read_text()
    always = {"datasets", "accelerate", "peft"}
    assert len(asked) > 20
    assert {name for name in asked - always if f'"{name}' not in known} == set()


def test_every_optimizer_and_tracker_of_transformers_is_known():
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from transformers.training_args import OptimizerNames

    built_in = {
        "adafactor",
        "adagrad",
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_torch_npu_fused",
        "adamw_torch_xla",
        "rmsprop",
        "sgd",
    }
    needy = set(packages._OPTIMIZERS)
    starts = tuple(packages._OPTIMIZER_FAMILIES)
    assert {name.value for name in OptimizerNames if name not in needy and not name.startswith(starts)} == built_in
    assert set(INTEGRATION_TO_CALLBACK) - set(packages._TRACKERS) == {"kubeflow"}


@pytest.fixture
def recipe(tmp_path, models):
    """A sound recipe as a file, after changes."""
    model = models("glm4")
    columns = {name: name for name in ("prompt", "chosen", "rejected")}
    write_jsonl(
        tmp_path / "rows.jsonl",
        [{"prompt": f"Where is lamp {n}?", "chosen": "In the tower.", "rejected": "I do not know."} for n in range(8)],
    )
    entry = {"file_name": "rows.jsonl", "ranking": True, "columns": columns}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"lamps": entry}))

    def write(**changes):
        settings = {
            "model_name_or_path": str(model),
            "stage": "dpo",
            "do_train": True,
            "finetuning_type": "lora",
            "dataset_dir": str(tmp_path),
            "dataset": "lamps",
            "template": "glm4",
            "cutoff_len": 64,
            "output_dir": str(tmp_path / "out"),
            "report_to": "none",
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(settings | changes))
        return path

    return write


@pytest.mark.slow
def test_a_missing_package_does_not_end_the_check(recipe, nothing_installed):
    path = recipe(enable_liger_kernel=True, use_adam_mini=True, dataset="lmaps", template="glm44")
    findings = check(path, gpus=1, gpu_memory=80).findings
    assert [where for where, _ in findings.errors] == [
        "enable_liger_kernel",
        "use_adam_mini",
        "template",
        "dataset lmaps",
    ]
    findings = check(recipe(enable_liger_kernel=True), gpus=1, gpu_memory=80).findings
    assert [where for where, _ in findings.errors] == ["enable_liger_kernel"]
    assert findings.facts["datasets"]["lamps"]["examples"] == 8
    assert findings.facts["memory"]["ways"]["llamafactory-cli train"]["fits"]


def test_missing_deepspeed_is_reported_once(recipe, nothing_installed, monkeypatch):
    def absent(*_):
        raise PackageNotFoundError("deepspeed")

    monkeypatch.setattr("transformers.integrations.deepspeed.HfTrainerDeepSpeedConfig", absent)
    findings = check(recipe(deepspeed={"zero_optimization": {"stage": 2}}), gpus=1, gpu_memory=80).findings
    assert [where for where, _ in findings.errors] == ["deepspeed"]
    assert "memory" in findings.facts


def test_a_model_that_is_missing_does_not_end_the_check(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "longer.yaml").write_text("model_name_or_path: x\noutput_dir: saves/first\n")
    path = recipe(model_name_or_path="saves/first", ref_model="./no", adapter_name_or_path="./a", dataset="lmaps")
    findings = check(path, gpus=1, gpu_memory=80).findings
    assert [(where, message.split(";")[0]) for where, message in findings.errors] == [
        ("model_name_or_path", "saves/first does not exist"),
        ("adapter_name_or_path", "./a does not exist"),
        ("ref_model", "./no does not exist"),
        ("dataset lmaps", f"is not registered in {tmp_path}/dataset_info.json"),
    ]
    assert findings.errors[0].message.endswith(f"make it with `longpo train {tmp_path}/longer.yaml`")


def problems(settings):
    findings = Findings()
    check_prerequisites("nowhere/recipe.yaml", settings, findings)
    return [f"{where}: {message}" for where, message in findings.errors]


def test_models_of_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    (tmp_path / "adapter/adapter_model.safetensors").write_text("x")
    hub = {"model_name_or_path": "org/base"}
    assert problems(hub | {"adapter_name_or_path": "adapter"}) == []
    assert problems({"model_name_or_path": "adapter"}) == [
        "model_name_or_path: adapter is a LoRA adapter, not a whole model; set model_name_or_path: org/base and "
        "adapter_name_or_path: adapter"
    ]
    assert problems({"adapter_name_or_path": "adapter"}) == [
        "model_name_or_path: is missing; set model_name_or_path: org/base"
    ]
    assert problems({"model_name_or_path": "smollm2-135m"}) == [
        "model_name_or_path: smollm2-135m is an embedded model of lf-longpo, which LLaMA-Factory cannot load by name; "
        "run `bash scripts/setup.sh` and set model_name_or_path: models/smollm2-135m"
    ]
    # Where the loss has no reference model, ref_model is never loaded.
    assert problems(hub | {"stage": "dpo", "pref_loss": "simpo", "ref_model": "./no"}) == []
    assert [line.split(":")[0] for line in problems(hub | {"stage": "kto", "ref_model": "./no"})] == ["ref_model"]
    assert problems(hub | {"resume_from_checkpoint": "saves/x/checkpoint-9"}) == [
        "resume_from_checkpoint: saves/x/checkpoint-9 is not a folder; set it to a checkpoint in output_dir, or remove "
        "it to use the newest checkpoint there"
    ]
    reward = {"stage": "ppo", "reward_model": "./no"}
    assert [line.split(":")[0] for line in problems(hub | reward)] == ["stage", "reward_model"]
    assert [line.split(":")[0] for line in problems(hub | reward | {"reward_model_type": "api"})] == ["stage"]


# What a recipe is for, by the end of its name.
COMMANDS = {
    "_longmab": "longpo generate",
    "_longreward": "longpo generate",
    "longqa": "longpo evaluate longqa",
    "longbench": "longpo evaluate longbench",
    "longbench_chat": "longpo evaluate longbench-chat",
    "winrate": "longpo evaluate winrate",
    "judge": "longpo evaluate judge",
    "multihop": "longpo synthesize multihop",
    "needle": "longpo synthesize needle",
    "self_instruct": "longpo synthesize self-instruct",
    "mix": "longpo synthesize mix",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_checked_after_a_fresh_setup(path, nothing_installed, monkeypatch, capsys):
    """In a copy without models, data and runs: what is missing is named with the command that makes it."""
    monkeypatch.chdir(REPOSITORY)
    relative = path.relative_to(REPOSITORY)
    exit_code = main(["check", str(relative), "--json"])
    out, err = capsys.readouterr()
    command = next((command for end, command in COMMANDS.items() if path.stem.endswith(end)), None)
    if command:
        assert exit_code == 2 and out == ""
        assert err.startswith(f"error: {relative} is not a file for `longpo check`; run `") and err.count("\n") == 1
        assert f"`{command} {relative}`" in err
        return
    assert exit_code in (0, 2), err
    errors = json.loads(out)["errors"]
    assert "Traceback" not in err and "refuses it" not in out
    messages = {error["where"]: error["message"] for error in errors}
    recipe = yaml.safe_load(path.read_text())
    for setting in ("enable_liger_kernel", "deepspeed"):
        assert (setting in messages) == bool(recipe.get(setting))
    for message in messages.values():
        assert "`" in message or "longpo register" in message, message


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["generate", "yaml/llama3_dpo.yaml"], "longpo train yaml/llama3_dpo.yaml"),
        (["score", "x.jsonl", "--config", "yaml/llama3_dpo.yaml"], "longpo train yaml/llama3_dpo.yaml"),
        (["evaluate", "longqa", "yaml/qwen2_dpo.yaml"], "longpo train yaml/qwen2_dpo.yaml"),
        (["synthesize", "needle", "yaml/mix.yaml"], "longpo synthesize mix yaml/mix.yaml"),
        (["synthesize", "self-instruct", "yaml/longqa.yaml"], "longpo evaluate longqa yaml/longqa.yaml"),
        (["train", "yaml/llama3_longmab.yaml"], "longpo generate yaml/llama3_longmab.yaml"),
        (["train", "yaml/qwen2_export.yaml"], "llamafactory-cli export yaml/qwen2_export.yaml"),
        (["train", "yaml/qwen2_serve.yaml"], "llamafactory-cli api yaml/qwen2_serve.yaml"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_file_for_another_command_is_named_in_one_line(arguments, names, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert f"run `{names}`" in error and error.count("\n") == 1


def test_a_wrong_key_of_the_right_file_is_still_named(tmp_path, capsys):
    text = (REPOSITORY / "yaml/llama3_longmab.yaml").read_text() + "\nseeds: 3\n"
    (tmp_path / "run.yaml").write_text(text)
    assert main(["generate", str(tmp_path / "run.yaml")]) == 2
    assert "unknown key seeds; did you mean seed?" in capsys.readouterr().err
