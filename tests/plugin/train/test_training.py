"""Every training recipe trains: its own settings, with a tiny random model and two CPU processes for the GPUs."""

import json

import pytest
import yaml
from prepared import Prepared, torchrun
from recipes import TRAINING, family_of, small


@pytest.mark.slow
@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_the_recipe_trains_two_steps_on_two_processes(path, models, tmp_path):
    recipe = yaml.safe_load(path.read_text())
    changes = small(path, models(family_of(path), most_byte_pairs=8_000), tmp_path) | {
        "max_steps": 2,
        "save_steps": 2,
        "logging_steps": 1,
    }
    # As llamafactory-cli starts it, without waiting for its look at the recipe.
    arguments = [str(path), *(f"{name}={value}" for name, value in changes.items())]
    run = Prepared(torchrun(2, "llamafactory.launcher", arguments), tmp_path)
    assert run.wait(600) == 0, run.stdout.read()[-2000:] + run.stderr.read()[-4000:]
    losses = [
        row["loss"]
        for row in json.loads((tmp_path / "out/trainer_state.json").read_text())["log_history"]
        if "loss" in row
    ]
    assert len(losses) == 2 and all(0 < loss < 100 for loss in losses)
    checkpoint = tmp_path / "out/checkpoint-2"
    weights = "adapter_model.safetensors" if recipe["finetuning_type"] == "lora" else "model.safetensors"
    assert (checkpoint / weights).stat().st_size > 1000
