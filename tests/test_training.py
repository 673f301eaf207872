"""Every training recipe trains: its own settings, with a tiny random model and two CPU processes for the GPUs."""

import json
import subprocess
import sys

import pytest
import yaml
from conftest import REPOSITORY, torchrun
from recipes import TRAINING, small


@pytest.mark.slow
@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_the_recipe_trains_two_steps_on_two_processes(path, models, tmp_path):
    recipe = yaml.safe_load(path.read_text())
    changes = small(path, models(path.stem.split("_")[0]), tmp_path) | {
        "max_steps": 2,
        "save_steps": 2,
        "logging_steps": 1,
    }
    # As llamafactory-cli starts it, without waiting for another import of everything.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "llamafactory.launcher", str(path)]
    run = subprocess.run(
        [*command, *(f"{name}={value}" for name, value in changes.items())],
        cwd=REPOSITORY,
        env=torchrun(processes=2),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    losses = [
        row["loss"]
        for row in json.loads((tmp_path / "out/trainer_state.json").read_text())["log_history"]
        if "loss" in row
    ]
    assert len(losses) == 2 and all(0 < loss < 100 for loss in losses)
    checkpoint = tmp_path / "out/checkpoint-2"
    weights = "adapter_model.safetensors" if recipe["finetuning_type"] == "lora" else "model.safetensors"
    assert (checkpoint / weights).stat().st_size > 1000
