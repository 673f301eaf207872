"""Which number format is computed in: on machines with and without bfloat16 instructions, on a CPU and on a GPU."""

import json

import pytest
import torch
import yaml
from test_train import recipe  # noqa: F401  the fixture

from lf_longpo.models import number_format
from lf_longpo.models.number_format import SWITCH, has_bfloat16, local_dtype
from lf_longpo.plugin.check.recipe_check import check
from lf_longpo.plugin.train.compute_format import adapt, emulates, without_bfloat16


@pytest.fixture
def native(monkeypatch):
    """A CPU with bfloat16 instructions, whatever this one is."""
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "amx_bf16": True})


@pytest.fixture
def emulated(native, monkeypatch):
    monkeypatch.setenv(SWITCH, "1")


@pytest.mark.parametrize(
    ("found", "has"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"neon": True, "bf16": True}, True),  # ARM
        ({"neon": True, "bf16": False}, False),
    ],
)
def test_a_cpu_has_bfloat16_by_its_instructions(monkeypatch, found, has):
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert has_bfloat16("cpu") is has


def test_a_gpu_that_emulates_bfloat16_has_none(monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    asked = []
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(including_emulation) or True
    )
    assert has_bfloat16("cuda") and asked == [False]


def test_the_switch_makes_any_machine_one_without(emulated):
    assert not has_bfloat16("cpu") and not has_bfloat16("cuda")


def test_models_in_this_process(native, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert (local_dtype("cpu", "auto"), local_dtype("cuda", "auto")) == (torch.bfloat16, "auto")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(SWITCH, "1")
    number_format.report_missing_bfloat16.cache_clear()
    for _ in range(2):
        assert local_dtype("cpu", "auto") == torch.float32 and local_dtype("cuda", "auto") == torch.float16
    line = "this {} has no bfloat16 instructions: weights and computation are {}\n"
    assert capsys.readouterr().err == line.format("CPU", "float32") + line.format("GPU", "float16")


def test_a_recipe_is_changed_only_where_it_would_be_emulated(native, monkeypatch):
    settings = {"use_cpu": True, "bf16": True, "learning_rate": 1e-5}
    assert adapt(settings) == (settings, None)
    monkeypatch.setenv(SWITCH, "1")
    assert emulates(settings) == "cpu"
    assert without_bfloat16(settings, "cpu") == settings | {"bf16": False, "fp16": False, "pure_bf16": False}
    # GPUs without it (V100, T4) train in float16, where the recipe asks for half precision at all.
    assert without_bfloat16(settings, "cuda") == settings | {"bf16": False, "fp16": True, "pure_bf16": False}
    assert without_bfloat16({"pure_bf16": True}, "cuda") == {"bf16": False, "fp16": True, "pure_bf16": False}
    assert not without_bfloat16({"learning_rate": 1e-5}, "cuda")["fp16"]


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_weights_and_computation_are_float32_without_bfloat16(recipe, tmp_path, emulated, monkeypatch, tuning):  # noqa: F811
    """Of a model whose files are bfloat16, in a recipe that asks for bfloat16."""
    from llamafactory.extras import packages  # noqa: F401  before the loader, which imports TRL
    from llamafactory.model import loader
    from llamafactory.train.tuner import run_exp
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    settings = recipe("llama3", bf16=True, finetuning_type=tuning, max_steps=1, output_dir=str(tmp_path / "out"))
    folder = tmp_path / "bfloat16"
    AutoModelForCausalLM.from_pretrained(settings["model_name_or_path"], dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(settings["model_name_or_path"]).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    seen = {}

    class Formats(TrainerCallback):
        def on_step_end(self, args, state, control, model, **_):
            seen["weights"] = {parameter.dtype for parameter in model.parameters()}
            seen["autocast"] = args.bf16 or args.fp16

    monkeypatch.setattr(loader, "load_config", loader.load_config)  # so that what is installed is taken out again
    adapted, message = adapt(settings | {"model_name_or_path": str(folder)})
    run_exp(adapted, callbacks=[Formats()])
    assert seen == {"weights": {torch.float32}, "autocast": False}
    assert message == "this CPU has no bfloat16 instructions: weights and computation are float32"


@pytest.mark.slow
def test_the_check_counts_what_will_be_computed_in(recipe, tmp_path, native, monkeypatch):  # noqa: F811
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe("llama3", bf16=True, output_dir=str(tmp_path / "out"))))

    def found():
        findings = check(path).findings
        (memory,) = (findings.facts["memory"]["ways"][name]["parts"] for name in ("longpo train",))
        return memory, [message for where, message in findings.warnings if where == "bf16"]

    with_it, warnings = found()
    assert not warnings
    monkeypatch.setenv(number_format.SWITCH, "1")
    without, (warning,) = found()
    assert without["activations"] == 2 * with_it["activations"]  # four bytes a number instead of two
    assert "weights and computation are float32 under longpo train; plain llamafactory-cli train keeps" in warning
