"""Every training recipe trains: its own settings, with a tiny random model and two CPU processes for the GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, write_jsonl
from tiny_models import tiny_model

from lf_longpo.plugin.registry import load_dataset_info

FAMILIES = ("llama3", "qwen2", "glm4")
RECIPES = sorted(
    path
    for path in (REPOSITORY / "yaml").glob("*.yaml")
    if path.stem.split("_")[0] in FAMILIES and yaml.safe_load(path.read_text()).get("do_train")
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of the tiny models, made when first asked for."""
    made = {}

    def model(family):
        if family not in made:
            made[family] = tiny_model(family, tmp_path_factory.mktemp(family))
        return made[family]

    return model


def data_folder(folder, name):
    """The recipe's data set under its own name and columns, with rows of our own."""
    entry = load_dataset_info(REPOSITORY / "dataset_info").get(name) or {
        "ranking": True,
        "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    }
    entry = {key: value for key, value in entry.items() if key not in ("hf_hub_url", "split")}
    texts = {"context": "The lamp hangs in the tower. " * 8, "query": "Where is it?", "answer": "In the tower."}
    texts |= {"win_response": "In the tower.", "lose_response": "I do not know."}
    texts |= {"prompt": "Where is the lamp?", "chosen": "In the tower.", "rejected": "I do not know."}
    write_jsonl(folder / "rows.jsonl", [{column: texts[column] for column in entry["columns"].values()}] * 24)
    (folder / "dataset_info.json").write_text(json.dumps({name: entry | {"file_name": "rows.jsonl"}}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipe_trains_two_steps_on_two_processes(path, models, tmp_path):
    recipe = yaml.safe_load(path.read_text())
    model = str(models(path.stem.split("_")[0]))
    changes = {
        # the model and the data
        "model_name_or_path": model,
        "dataset_dir": str(data_folder(tmp_path, recipe["dataset"])),
        "cutoff_len": 512,
        "preprocessing_num_workers": 1,
        "dataloader_num_workers": 0,
        # the machine
        "bf16": "false",
        "enable_liger_kernel": "false",
        # the length
        "max_steps": 2,
        "save_steps": 2,
        "logging_steps": 1,
        "plot_loss": "false",
        "output_dir": str(tmp_path / "out"),
    }
    if "ref_model" in recipe:
        changes["ref_model"] = model
    path_of_torchrun = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path_of_torchrun, "FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}
    command = [sys.executable, "-m", "llamafactory.cli", "train", str(path)]
    run = subprocess.run(
        [*command, *(f"{name}={value}" for name, value in changes.items())],
        cwd=REPOSITORY,
        env=environment,
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
