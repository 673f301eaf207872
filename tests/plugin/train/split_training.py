"""Trainings whose rows or weights are split over processes, each next to the same training with whole rows.

`scripts/check_sequence_parallel.py` runs all of them, and test_sequence_parallel.py a few.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from fsdp_on_cpu import FSDP2, TILE
from prepared import REPOSITORY, Prepared, torchrun
from safetensors.torch import load_file

from lf_longpo.models.embedded import model_path

WORDS = "lamp tower river stone light word north harbour seven blue".split()
# Time, and a count of which of two rewards is larger: where both are nearly zero, rounding decides.
# Of a resumed run, transformers' train_loss has the steps since then only.
UNCOMPARED = ("runtime", "per_second", "accuracies", "train_loss")
WORKER = "lf_longpo.plugin.train.worker"


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        family: architecture, of tiny_models.py; `smollm2` is the embedded model in float32, with heads of its own.
        heads: query heads and key-value heads.
        parallel: P processes compute a row together.
        processes: all of the run.
        deepspeed: file in yaml/deepspeed; empty: DDP.
        changes: to the recipe.
        before: P of a run that ends after two steps, which this one resumes; 0: none.
        whole: processes of the training with whole rows.
        tolerance: of every relative difference.
        options: further `TrainOptions` of both trainings.
        fsdp: whether FSDP2 splits the weights over the processes.
        tile: tokens of a tile of the split training's layers under FSDP2; 0: rows are not tiled.
    """

    family: str = "llama3"
    heads: tuple[int, int] = (4, 2)
    parallel: int = 2
    processes: int = 2
    deepspeed: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    before: int = 0
    whole: int = 1
    tolerance: float = 1e-5
    options: Mapping[str, Any] = field(default_factory=dict)
    fsdp: bool = False
    tile: int = 0


SFT = {"stage": "sft", "dataset": "answers", "pref_ftx": None, "lora_dropout": 0.0}
FULL = {"finetuning_type": "full"}
TWO = {"per_device_train_batch_size": 2}
ACCUMULATED = {"gradient_accumulation_steps": 2}
EVALUATED = {"val_size": 5, "eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 2}
SHARED = {"dataset": "shared"}  # several pairs of each prompt
Z2, Z3 = "ds_z2.json", "ds_z3.json"


def _cases() -> dict[str, Case]:
    found = {}
    for tuning, changes in (("lora", {}), ("full", FULL)):
        for family in ("llama3", "qwen2", "qwen3", "glm4"):
            for heads in ((4, 2), (3, 1), (4, 1)):
                name = f"{family}, {heads[0]} heads, {heads[1]} key-value heads, {tuning}"
                found[name] = Case(family, heads, changes=changes)
            found[f"{family}, zero2, {tuning}"] = Case(family, deepspeed=Z2, changes=changes)
            found[f"{family}, zero3, {tuning}"] = Case(family, deepspeed=Z3, changes=changes)
            found[f"{family}, sft, {tuning}"] = Case(family, changes=changes | SFT)
        found |= {
            f"P = 4, {tuning}": Case("llama3", (4, 2), 4, 4, changes=changes),
            f"P = 4, 6 heads, {tuning}": Case("qwen2", (6, 2), 4, 4, changes=changes),
            f"P = 4, zero3, {tuning}": Case("qwen2", (4, 2), 4, 4, Z3, changes),
            f"2 x 2, {tuning}": Case("llama3", (4, 2), 2, 4, changes=changes),
            f"2 x 2, 3 heads, zero2, {tuning}": Case("qwen2", (3, 1), 2, 4, Z2, changes),
            f"2 x 2, zero3, {tuning}": Case("llama3", (4, 2), 2, 4, Z3, changes),
            f"2 x 2, sft, accumulated, {tuning}": Case("llama3", (4, 2), 2, 4, changes=changes | SFT | ACCUMULATED),
            f"two pairs, {tuning}": Case("llama3", changes=changes | TWO),
            f"two pairs, 3 heads, {tuning}": Case("qwen2", (3, 1), changes=changes | TWO),
            f"accumulated, {tuning}": Case("llama3", changes=changes | ACCUMULATED),
            f"accumulated, zero2, {tuning}": Case("llama3", deepspeed=Z2, changes=changes | ACCUMULATED),
            f"evaluation, {tuning}": Case("llama3", changes=changes | EVALUATED),
            f"evaluation, 2 x 2, {tuning}": Case("llama3", (4, 2), 2, 4, changes=changes | EVALUATED, whole=2),
            f"evaluation, 2 x 2, sft, {tuning}": Case(
                "llama3", (4, 2), 2, 4, changes=changes | SFT | EVALUATED, whole=2
            ),
            f"several pairs of a prompt, {tuning}": Case("llama3", changes=changes | SHARED),
            f"several pairs of a prompt, P = 4, zero2, {tuning}": Case("qwen2", (3, 1), 4, 4, Z2, changes | SHARED),
            f"several pairs of a prompt, 2 x 2, {tuning}": Case("qwen3", (4, 2), 2, 4, "", changes | SHARED, whole=2),
            f"resumed from P = 1, zero2, {tuning}": Case("llama3", (4, 2), 2, 2, Z2, changes | ACCUMULATED, before=1),
            f"resumed from P = 1, zero3, {tuning}": Case("llama3", (4, 2), 2, 2, Z3, changes | ACCUMULATED, before=1),
            # transformers does not resume several processes without DeepSpeed on CPUs.
            f"resumed from P = 4, zero2, {tuning}": Case("llama3", (4, 2), 2, 4, Z2, changes, before=4),
        }
    for tuning, changes in (("lora", {}), ("full", FULL)):
        for family in ("llama3", "qwen2", "qwen3", "glm4"):
            found[f"{family}, fsdp, {tuning}"] = Case(family, (4, 2), 1, 2, changes=changes, fsdp=True)
        found |= {
            f"fsdp, tiles, {tuning}": Case("llama3", (4, 2), 1, 2, changes=changes, fsdp=True, tile=16),
            f"fsdp, two pairs, accumulated, {tuning}": Case(
                "llama3", (4, 2), 1, 2, changes=changes | TWO | ACCUMULATED, fsdp=True
            ),
            f"fsdp, sft, {tuning}": Case("qwen2", (4, 2), 1, 2, changes=changes | SFT, fsdp=True),
            f"fsdp, evaluation, {tuning}": Case(
                "llama3", (4, 2), 1, 2, changes=changes | EVALUATED, whole=2, fsdp=True
            ),
            f"fsdp, P = 2, {tuning}": Case("llama3", (4, 2), 2, 2, changes=changes, fsdp=True),
            f"fsdp, P = 2, 3 heads, tiles, {tuning}": Case("qwen2", (3, 1), 2, 2, changes=changes, fsdp=True, tile=16),
            f"fsdp, 2 x 2, sft, {tuning}": Case("llama3", (4, 2), 2, 4, changes=changes | SFT, fsdp=True),
        }
    for loss in ("hinge", "ipo", "kto_pair", "orpo", "simpo"):
        found[loss] = Case(changes={"pref_loss": loss})
    average = {"average_tokens_across_devices": False}
    return found | {
        "ld_alpha": Case(changes={"ld_alpha": 0.3}),
        "listwise, several pairs of a prompt": Case(changes=SHARED, options={"pref_loss": "listwise"}),
        "weighted by the gap, with a margin, several pairs of a prompt": Case(
            changes=SHARED, options={"pair_weight": "gap", "pair_margin": 0.3}
        ),
        "label smoothing": Case(changes={"dpo_label_smoothing": 0.1}),
        "bco": Case(changes={"pref_bco_weight": 0.5}),
        "freeze": Case(changes={"finetuning_type": "freeze", "freeze_trainable_layers": 1}),
        "no checkpointing": Case(changes={"disable_gradient_checkpointing": True}),
        "checkpointing, not reentrant": Case(changes={"use_reentrant_gc": False}),
        "sft, average in each process": Case(changes=SFT | ACCUMULATED | average),
        "sft, prompts in the loss": Case(changes=SFT | {"train_on_prompt": True}),
        "tokens seen": Case("llama3", (4, 2), 2, 4, changes={"include_num_input_tokens_seen": True}),
        "two epochs": Case(changes={"max_steps": -1, "num_train_epochs": 2.0}),
        "two epochs, no seed for the order": Case(
            changes={"max_steps": -1, "num_train_epochs": 2.0, "accelerator_config": {"use_seedable_sampler": False}}
        ),
        "glm4_0414": Case("glm4_0414"),
        # A whole model of 30 layers. Adam's first step is the sign of a gradient, which rounding decides near zero.
        "qlora": Case(
            "smollm2",
            changes={"quantization_bit": 4, "max_steps": 2, "optim": "sgd", "learning_rate": 1.0},
            tolerance=1e-4,
        ),
    }


CASES = _cases()


def differences(case: Case, folder: Path) -> dict[str, float]:
    """Trains in both ways; the largest relative difference of each logged figure and of each parameter's tensor."""
    settings = _recipe(case, folder)
    groups, steps = case.processes // case.parallel, settings.get("gradient_accumulation_steps", 1)
    _train(
        settings | {"gradient_accumulation_steps": steps * groups // case.whole},
        folder / "whole",
        {"sequence_parallel": 1, **case.options},
        case.whole,
    )
    if case.deepspeed:
        settings["deepspeed"] = str(REPOSITORY / "yaml/deepspeed" / case.deepspeed)
        del settings["use_cpu"]
    variables = FSDP2 | {TILE: str(case.tile)} if case.fsdp else {}
    if case.before:
        settings |= {"save_strategy": "steps", "save_steps": 2}
        # As many examples a step as after it.
        first = settings | {"gradient_accumulation_steps": steps * case.before // case.parallel, "max_steps": 2}
        _train(first, folder / "split", {"sequence_parallel": case.before, **case.options}, case.processes)
    _train(settings, folder / "split", {"sequence_parallel": case.parallel, **case.options}, case.processes, variables)
    return _figures(folder / "whole", folder / "split") | _parameters(folder / "whole", folder / "split")


def _recipe(case: Case, folder: Path) -> dict[str, Any]:
    """A tiny model over twelve pairs of unequal lengths, which differ in their responses' lengths too."""
    chance = random.Random(0)

    def text(least: int, most: int) -> str:
        return " ".join(chance.choice(WORDS) for _ in range(chance.randint(least, most)))

    rows = [{"prompt": text(20, 80), "chosen": text(3, 20), "rejected": text(3, 20)} for _ in range(12)]
    columns = {column: column for column in rows[0]}
    shared = [
        row | {"prompt": rows[number % 5]["prompt"], "chosen_reward": 1 - number / 20, "rejected_reward": number / 40}
        for number, row in enumerate(rows)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "shared.json").write_text(json.dumps(shared))
    info = {
        "pairs": {"file_name": "rows.json", "ranking": True, "columns": columns},
        "shared": {"file_name": "shared.json", "ranking": True, "columns": columns},
        "answers": {"file_name": "rows.json", "columns": {"prompt": "prompt", "response": "chosen"}},
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return {
        "stage": "dpo",
        "do_train": True,
        "finetuning_type": "lora",
        "dataset": "pairs",
        "template": "smollm2",
        "cutoff_len": 256,
        "model_name_or_path": str(_model(case, folder / "model")),
        "dataset_dir": str(folder),
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "max_steps": 5,
        "per_device_train_batch_size": 1,
        "learning_rate": 1.0e-3,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "pref_ftx": 0.1,
        **case.changes,
    }


def _model(case: Case, folder: Path) -> Path:
    from tiny_models import tiny_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if case.family == "smollm2":  # quantised blocks are wider than the layers of tiny models
        embedded = model_path("smollm2-135m")
        AutoModelForCausalLM.from_pretrained(embedded, dtype=torch.float32).save_pretrained(folder)
        AutoTokenizer.from_pretrained(embedded).save_pretrained(folder)
        return folder
    tiny_model(case.family, folder, small_tokenizer=True)
    config = AutoConfig.from_pretrained(folder)
    config.num_attention_heads, config.num_key_value_heads = case.heads
    config.head_dim, config.hidden_size = 8, 8 * case.heads[0]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)  # so that what a token sees matters
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)  # biases are zero
    model.save_pretrained(folder)
    return folder


def _train(
    settings: Mapping[str, Any],
    folder: Path,
    options: Mapping[str, Any],
    processes: int,
    variables: Mapping[str, str] | None = None,
) -> None:
    folder.mkdir(exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(dict(settings) | {"output_dir": str(folder / "out")}))
    arguments = [str(recipe), "--options", json.dumps(options)]
    alone = processes == 1 and not settings.get("deepspeed")
    worker = "fsdp_on_cpu" if variables else WORKER
    command = [sys.executable, "-m", worker, *arguments] if alone else torchrun(processes, worker, arguments)
    environment = os.environ | {"LLAMAFACTORY_VERBOSITY": "WARN"} | (variables or {})
    if variables:  # FSDP aborts in processes that are forks of another one with PyTorch, as prepared ones are
        environment["PYTHONPATH"] = os.pathsep.join(map(str, (Path(__file__).parent, REPOSITORY)))
        run = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert run.returncode == 0, run.stdout[-4000:]
        return
    process = Prepared(command, folder, environment, merged=True)
    try:
        if process.wait(900):
            raise AssertionError(process.stdout.read()[-4000:])
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(process.stdout.read()[-4000:]) from None


def _figures(whole: Path, split: Path) -> dict[str, float]:
    """The largest difference of each figure, relative to its largest value in the run."""
    before, after = (
        json.loads((folder / "out/trainer_state.json").read_text())["log_history"] for folder in (whole, split)
    )
    assert [row["step"] for row in before] == [row["step"] for row in after]
    assert [set(row) for row in before] == [set(row) for row in after]
    uncompared = (*UNCOMPARED, "flos") if _has_zero(split) else UNCOMPARED  # it hides parameters that are elsewhere
    names = {name for row in before for name in row if not any(part in name for part in uncompared)}
    assert {"loss", "grad_norm"} <= names
    found = {}
    for name in sorted(names):
        # Rewards are differences of log-probabilities and share their rounding.
        source = name.rsplit("rewards/", 1)[0] + "logps/chosen" if "rewards/" in name else name
        scale = max(abs(row[source]) for row in before if source in row) * (0.1 if source != name else 1)
        pairs = [(one[name], two[name]) for one, two in zip(before, after, strict=True) if name in one]
        found[name] = max(abs(one - two) for one, two in pairs) / max(scale, 1e-30)
    return found


def _has_zero(folder: Path) -> bool:
    return bool(yaml.safe_load((folder / "recipe.yaml").read_text()).get("deepspeed"))


def _parameters(whole: Path, split: Path) -> dict[str, float]:
    """The distance of the two tensors of each parameter of the trained model, relative to the tensor."""
    name = "adapter_model.safetensors" if (whole / "out/adapter_model.safetensors").exists() else "model.safetensors"
    before, after = (load_file(folder / "out" / name) for folder in (whole, split))
    assert before.keys() == after.keys()
    if (whole / "out/config.json").exists():
        config = json.loads((whole / "out/config.json").read_text())
        for tensors in (before, after):
            tensors |= {key: _with_gradient(tensors[key], config) for key in tensors if key.endswith("k_proj.bias")}
    return {key: ((before[key] - after[key]).norm() / before[key].norm()).item() for key in before}


def _with_gradient(bias: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
    """The dimensions of the keys' bias that positions rotate.

    In the others (half of a head in GLM) it adds the same to a query's products with all keys, which softmax cancels.
    Their exact gradient is zero, and Adam makes steps of the size of the learning rate from its rounding.
    """
    rotated = int(config["head_dim"] * config["rope_parameters"].get("partial_rotary_factor", 1))
    return bias.unflatten(0, (-1, config["head_dim"]))[:, :rotated]
