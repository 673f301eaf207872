"""Packed rows under FSDP2: two processes against one."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
import yaml
from prepared import Prepared
from safetensors.torch import load_file
from test_train import history, recipe  # noqa: F401  recipe is a fixture

# As `accelerate launch` sets them for LLaMA-Factory's examples/accelerate/fsdp2_config.yaml.
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_SYNC_MODULE_STATES": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
RUNS = {
    "DPO, LoRA": {},
    "DPO, full": {"finetuning_type": "full"},
    "SFT, LoRA": {"stage": "sft", "pref_ftx": None},
}


def start(settings, folder):
    folder.mkdir()
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings | {"output_dir": str(folder / "out")}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--start-method", "fork", "--run-path", str(Path(__file__).with_name("fsdp_on_cpus.py")), str(path)]
    return Prepared(command, folder, os.environ | FSDP2 | {"LLAMAFACTORY_VERBOSITY": "WARN"}, merged=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_the_same_as_one(recipe, tmp_path, name):  # noqa: F811
    settings = recipe("llama3", per_device_train_batch_size=1, max_steps=4, **RUNS[name])
    settings = {key: value for key, value in settings.items() if value is not None}
    one = history(settings | {"gradient_accumulation_steps": 2}, tmp_path / "one", packed=True)
    process = start(settings, tmp_path / "two")
    exit_code = process.wait(300)
    output = process.stdout.read()
    assert exit_code == 0, output[-4000:]
    two = json.loads((tmp_path / "two/out/trainer_state.json").read_text())["log_history"]
    assert len(one) == len(two) == 5
    for before, after in zip(one[:-1], two[:-1], strict=True):
        for figure in {"loss", "grad_norm", "logps/chosen"} & set(before):
            assert after[figure] == pytest.approx(before[figure], rel=1e-5, abs=1e-6), (figure, before, after)
    (weights,) = (tmp_path / "one").glob("*model.safetensors")
    expected, found = load_file(weights), load_file(tmp_path / "two/out" / weights.name)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5)
