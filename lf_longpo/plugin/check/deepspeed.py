"""The DeepSpeed configuration of a recipe: readable, and in agreement with the recipe."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from lf_longpo.errors import first_line
from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.recipe import Arguments


class Zero(NamedTuple):
    """What DeepSpeed or FSDP splits over the GPUs or moves to the CPU.

    Attributes:
        stage: 0 nothing, 1 optimizer states, 2 also gradients, 3 also weights.
        optimizer_on_cpu: whether optimizer states are in the CPU's memory.
        weights_on_cpu: whether weights are in the CPU's memory.
        fsdp: whether it is FSDP, which splits as stage 3 and keeps weights in float32.
    """

    stage: int = 0
    optimizer_on_cpu: bool = False
    weights_on_cpu: bool = False
    fsdp: bool = False


def read_deepspeed(settings: Mapping[str, Any], findings: Findings) -> dict[str, Any] | None:
    """The configuration that the recipe's `deepspeed` names; None if it names none or it cannot be read."""
    named = settings.get("deepspeed")
    if named is None:
        return None
    if settings.get("use_cpu"):
        findings.error(
            "use_cpu",
            "stops the processes of DeepSpeed from connecting to each other; remove it: a machine without GPUs uses "
            "the CPU",
        )
    if isinstance(named, Mapping):
        return dict(named)
    path = Path(str(named))
    if not path.is_file():
        findings.error("deepspeed", f"no file {path}; set one of yaml/deepspeed, or correct the path")
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        findings.error("deepspeed", f"{path} is not JSON: {error}; fix the file")
        return None
    if not isinstance(config, dict):
        findings.error("deepspeed", f"{path} must hold a JSON object; fix the file")
        return None
    return config


def zero_of(config: Mapping[str, Any] | None) -> Zero:
    """What a DeepSpeed configuration splits and moves."""
    zero = (config or {}).get("zero_optimization") or {}

    def on_cpu(part: str) -> bool:
        return (zero.get(part) or {}).get("device", "none") in ("cpu", "nvme")

    return Zero(zero.get("stage", 0), on_cpu("offload_optimizer"), on_cpu("offload_param"))


def fsdp_of(environment: Mapping[str, str]) -> Zero | None:
    """What FSDP splits, by the variables that `accelerate launch` sets; None without FSDP."""
    if environment.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    on_cpu = environment.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true"
    return Zero(3, on_cpu, on_cpu, fsdp=True)


def check_deepspeed(config: dict[str, Any], run: Arguments, world: int, steps: int, findings: Findings) -> None:
    """Reports DeepSpeed's values that contradict the recipe's, by transformers' comparison.

    Args:
        config: DeepSpeed's configuration.
        run: the recipe.
        world: number of processes.
        steps: optimizer steps of the run.
        findings: gets the results.
    """
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    try:
        compared = HfTrainerDeepSpeedConfig(json.loads(json.dumps(config)))
    except ImportError:  # not installed; check_prerequisites reports it
        return
    except ValueError as error:
        findings.error("deepspeed", first_line(error))
        return
    arguments = SimpleNamespace(**vars(run.training) | {"world_size": world})
    arguments.get_warmup_steps = run.training.get_warmup_steps
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=1))
    compared.trainer_config_process(arguments)
    try:
        compared.trainer_config_finalize(arguments, model, steps)
    except ValueError:
        for mismatch in compared.mismatches:
            value, _, recipe_value = mismatch.removeprefix("- ds ").partition(" vs hf ")
            findings.error("deepspeed", f'{value} contradicts the recipe\'s {recipe_value}; set it to "auto"')
    if zero_of(config).stage == 3 and (run.finetuning.pure_bf16 or run.training.predict_with_generate):
        findings.error(
            "deepspeed", "LLaMA-Factory refuses ZeRO-3 with pure_bf16 or predict_with_generate; set them to false"
        )
    if run.finetuning.use_galore or run.finetuning.use_apollo:
        findings.error("deepspeed", "LLaMA-Factory refuses DeepSpeed with GaLore or APOLLO; remove one of them")
    if run.model.quantization_bit not in (None, 4) and zero_of(config).stage == 3:
        findings.error("deepspeed", "ZeRO-3 splits 4-bit weights only; use yaml/deepspeed/ds_z2.json")
