"""`longpo train` as people start it: two processes under DeepSpeed, killed and started again, and what it refuses."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from prepared import Prepared, torchrun
from test_train import history, other_model, recipe  # noqa: F401  recipe is the fixture

from lf_longpo.cli import main
from lf_longpo.plugin.recipe import read_recipe
from lf_longpo.plugin.train.console_output import Screen
from lf_longpo.plugin.train.options import TrainOptions
from lf_longpo.plugin.train.worker import work

SPEED = ("runtime", "per_second", "flos")


def start(settings, folder, processes=1):
    """Starts `longpo train` with these settings, its output in `folder`/out."""
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings | {"output_dir": str(folder / "out")}))
    environment = os.environ | {"LLAMAFACTORY_VERBOSITY": "WARN"}
    command = [sys.executable, "-m", "lf_longpo", "train", str(path)]
    if settings.get("deepspeed"):  # as the launcher starts it, without waiting for its look at the recipe
        command = torchrun(processes, "lf_longpo.plugin.train.worker", [str(path)])
    elif processes > 1:
        environment |= {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(processes)}
    return Prepared(command, folder, environment, merged=True)


def finish(process):
    exit_code, output = process.wait(600), process.stdout.read()
    assert exit_code == 0, output[-4000:]
    return output


def log(folder):
    return json.loads((folder / "out/trainer_state.json").read_text())["log_history"]


def same(expected, found, tolerance):
    assert len(expected) == len(found) > 3
    for before, after in zip(expected, found, strict=True):
        assert before["step"] == after["step"]
        for name in ("loss", "grad_norm", "logps/chosen", "logps/rejected", "eval_loss"):
            if name in before:
                assert after[name] == pytest.approx(before[name], rel=tolerance), (name, before, after)


RUNS = {
    "DDP": ("dpo", {}, None),
    "LoRA, ZeRO-2": ("dpo", {}, "ds_z2.json"),
    "LoRA, ZeRO-3": ("dpo", {}, "ds_z3.json"),
    "full, ZeRO-3": ("dpo", {"finetuning_type": "full"}, "ds_z3.json"),
    "full, another reference, ZeRO-3": ("dpo", {"finetuning_type": "full", "ref_model": "OTHER"}, "ds_z3.json"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_the_same_as_one(recipe, tmp_path, models, name):  # noqa: F811
    stage, changes, config = RUNS[name]
    if "ref_model" in changes:
        changes = changes | {"ref_model": str(other_model(models("llama3", small_tokenizer=True), tmp_path))}
    settings = recipe("llama3", stage=stage, per_device_train_batch_size=1, max_steps=-1, **changes)
    settings |= {"num_train_epochs": 2.0}
    one = history(settings | {"gradient_accumulation_steps": 2}, tmp_path / "one", packed=True)
    del settings["use_cpu"]
    deepspeed = {"deepspeed": str(REPOSITORY / "yaml/deepspeed" / config)} if config else {}
    output = finish(start(settings | deepspeed, tmp_path / "two", processes=2))
    two = log(tmp_path / "two")
    # One of the two processes reports.
    assert output.count("longpo train: prompts shared by chosen and rejected, logits of responses only") == 1
    assert [output.count(f"step {row['step']}/{two[-1]['step']}: loss") for row in two[:-1]] == [1] * (len(two) - 1)
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for before, after in zip(one[:-1], two[:-1], strict=True):
        for name in {"loss", "grad_norm", "rewards/margins", "logps/chosen"} & set(before):
            scale = 100 if "rewards" in name else 1
            assert after[name] == pytest.approx(before[name], rel=1e-4, abs=1e-5 * scale), (name, before, after)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_killed_run_carries_on_as_if_nothing_had_happened(recipe, tmp_path, tuning):  # noqa: F811
    settings = recipe("glm4", finetuning_type=tuning, max_steps=30, save_strategy="steps", save_steps=4)
    whole = history(settings, tmp_path / "whole", packed=True)
    process = start(settings, tmp_path / "killed")
    written = tmp_path / "killed/out/trainer_log.jsonl"
    deadline = time.monotonic() + 300
    while not written.is_file() or len(written.read_text().splitlines()) < 6:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    checkpoints = sorted(Path(tmp_path, "killed/out").glob("checkpoint-*/trainer_state.json"))
    assert len(checkpoints) > 0 and not (tmp_path / "killed/out/trainer_state.json").is_file()
    finish(start(settings, tmp_path / "killed"))
    same(whole[:-1], log(tmp_path / "killed")[:-1], 1e-6)


@pytest.mark.slow
def test_what_cannot_be_packed_trains_as_before(recipe, tmp_path):  # noqa: F811
    output = finish(start(recipe("glm4", flash_attn="disabled", max_steps=1), tmp_path / "eager"))
    assert "longpo train: plain LLaMA-Factory, since attention is eager" in output
    settings = recipe("glm4", stage="sft", packing=True, neat_packing=True, max_steps=1, cutoff_len=512)
    output = finish(start(settings, tmp_path / "packed"))
    assert "longpo train: plain LLaMA-Factory, since LLaMA-Factory packs the examples" in output


def test_a_recipe_that_llamafactory_would_not_take_is_refused_at_once(recipe, tmp_path, capsys):  # noqa: F811
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe("glm4", learning_rat=1e-5)))
    assert main(["train", str(path)]) == 2
    assert "learning_rat: LLaMA-Factory has no such setting; did you mean learning_rate?" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [1, 2])
def test_two_ray_actors_are_the_same_as_one_process(recipe, tmp_path, monkeypatch, parallel):  # noqa: F811
    import ray
    from llamafactory.train import tuner

    from lf_longpo.plugin.train.ray_worker import OPTIONS

    settings = recipe("llama3", per_device_train_batch_size=1, max_steps=6)
    # Actors that share a row are one reader of the data.
    one = history(settings | {"gradient_accumulation_steps": 2 // parallel}, tmp_path / "one", packed=True)

    def small_group(devices):
        return ray.util.placement_group([{"CPU": 1}] * 2), {"CPU": 1}

    def small_actor(**arguments):
        return actor(**arguments) | {"num_cpus": 1}

    # LLaMA-Factory asks for ten CPU cores a device, also where the devices are the cores.
    actor = tuner.get_ray_remote_config_for_worker
    monkeypatch.setattr(tuner, "get_placement_group", small_group)
    monkeypatch.setattr(tuner, "get_ray_remote_config_for_worker", small_actor)
    monkeypatch.setattr(tuner, "Worker", tuner.Worker)
    monkeypatch.setenv("USE_RAY", "1")
    monkeypatch.setenv(OPTIONS, "{}")  # which `work` changes in this process
    node = ray.init(num_cpus=2, include_dashboard=False).address_info["node_ip_address"]
    try:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(settings | {"output_dir": str(tmp_path / "out"), "master_addr": node}))
        options = TrainOptions(sequence_parallel=parallel)
        work(read_recipe(path, ["ray_num_workers=2"]), options, Screen(None))
    finally:
        ray.shutdown()
    assert len(list((tmp_path / "out/reference_logps").iterdir())) > 0  # LLaMA-Factory's own trainer keeps none
    same(one[:-1], log(tmp_path)[:-1], 1e-4)
