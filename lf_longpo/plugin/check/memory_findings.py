"""Findings on memory: the peak of a step by both commands, and what lowers it if it does not fit."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lf_longpo.errors import first_line
from lf_longpo.models.number_format import replacement
from lf_longpo.plugin.check.deepspeed import Zero
from lf_longpo.plugin.check.examples import Lengths
from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.check.memory_estimate import (
    GIB,
    Machine,
    Model,
    estimate,
    measure_model,
    packed_rows,
    stock_rows,
)
from lf_longpo.plugin.check.prompt_groups import Group, batch_of
from lf_longpo.plugin.check.template import Encoding
from lf_longpo.plugin.check.trainer_check import reason_for_plain
from lf_longpo.plugin.recipe import Arguments

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Assumed without a GPU and without --gpus and --gpu-memory: the machine in the headers of the recipes.
_ASSUMED = (8, 80 * GIB)
STOCK, PACKED = "llamafactory-cli train", "longpo train"
"""The two commands that train a recipe."""


def machine_of(run: Arguments, gpus: int, gpu_memory: float) -> Machine:
    """The machine to estimate for: this one, or the one that the user describes.

    Args:
        run: the recipe.
        gpus: their number; 0: this machine's, or 8 if it has none.
        gpu_memory: memory of one in GiB; 0: this machine's, or 80.
    """
    import torch

    if run.training.use_cpu and not gpus:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Machine(1, memory, "this machine's CPU", here=True)
    count, size = _ASSUMED
    source = "assumed; set --gpus and --gpu-memory"
    if torch.cuda.is_available():
        count, size = torch.cuda.device_count(), torch.cuda.get_device_properties(0).total_memory
        source = torch.cuda.get_device_name(0)
    if gpus or gpu_memory:
        source = "--gpus and --gpu-memory"
    here = torch.cuda.is_available() and not (gpus or gpu_memory)
    return Machine(gpus or count, int(gpu_memory * GIB) or size, source, here)


def report_memory(
    config: "PretrainedConfig",
    run: Arguments,
    encoding: Encoding | None,
    zero: Zero | None,
    machine: Machine,
    kept: Sequence[Lengths],
    groups: Sequence[Group],
    emulating: str | None,
    findings: Findings,
) -> Model | None:
    """Reports which trainer the recipe gets and the memory of a step on one GPU; returns the model's sizes if known.

    Args:
        config: of the model.
        run: the recipe.
        encoding: the recipe's tokenizer and template, if they can be loaded.
        zero: DeepSpeed's splitting; None without DeepSpeed.
        machine: its GPUs share the run.
        kept: lengths of all examples after truncation; an example of cutoff_len is assumed if there are none.
        groups: the rows of `longpo train`, if pairs are trained.
        emulating: type of the device if it lacks bfloat16, else None.
        findings: gets the results.
    """
    model = None
    try:
        reason = reason_for_plain(config, run, encoding)
        findings.facts["longpo train"] = {"accelerated": reason is None, "reason": reason}
        model = measure_model(config, run)
        models = {STOCK: model}
        if reason is None:
            models[PACKED] = model
            if emulating:
                width = replacement(emulating).itemsize
                models[PACKED] = replace(model, stored=width, compute=width)
        findings.facts["memory"] = _memory(models, run, zero, machine, kept, groups, findings)
    except (ValueError, AttributeError, OSError) as error:  # not a causal language model, or sizes of other names
        findings.warn("memory", f"is not estimated for this model: {first_line(error)}")
    return model


def _memory(
    models: dict[str, Model],
    run: Arguments,
    zero: Zero | None,
    machine: Machine,
    kept: Sequence[Lengths],
    groups: Sequence[Group],
    findings: Findings,
) -> dict[str, Any]:
    # Without data: a prompt and responses of cutoff_len in total, a tenth of it for the response.
    response = run.data.cutoff_len // 10
    assumed = Lengths(run.data.cutoff_len - response, (response,) * (2 if run.data_stage == "rm" else 1))
    if run.data.packing:
        kept, assumed = [], Lengths(0, (run.data.cutoff_len + 1,))
    ways = {}
    for name, model in models.items():
        # The longest example differs: two rows with a prompt each, or one row with all responses.
        if name == PACKED and groups:
            batch = batch_of(groups, run)
            every = [packed_rows(group.lengths, run, batch) for group in groups]
        else:
            every = [(packed_rows if name == PACKED else stock_rows)(lengths, run) for lengths in kept or [assumed]]
        rows = max(every, key=lambda rows: rows.count * rows.length)
        parts, total = estimate(model, run, zero, machine, rows, packed=name == PACKED)
        ways[name] = {
            "parts": {part: int(size) for part, size in parts.items() if size},
            "total": int(total),
            "fits": total <= machine.memory,
        }
    stock: dict[str, Any] = ways[STOCK]
    if not stock["fits"]:
        needed = f"a step of {STOCK} needs about {stock['total'] / GIB:.0f} GiB on each of {machine.gpus} GPUs"
        available = f"of {machine.memory / GIB:.0f} GiB ({machine.source})"
        findings.warn("memory", f"{needed} {available}; {_advice(ways, stock['parts'], run, zero)}")
    return {
        "longest row": max((lengths.total for lengths in kept), default=run.data.cutoff_len),
        "gpus": machine.gpus,
        "gpu memory": machine.memory,
        "told": machine.source,
        "ways": ways,
    }


def _advice(ways: dict[str, Any], parts: dict[str, float], run: Arguments, zero: Zero | None) -> str:
    """The command that fits, or else what lowers the largest part most."""
    if PACKED in ways and ways[PACKED]["fits"]:
        return f"use {PACKED}, which needs {ways[PACKED]['total'] / GIB:.0f} GiB for the same loss"
    largest = max(parts, key=lambda part: parts[part])
    stage = zero.stage if zero else 0
    if largest in ("logits", "attention mask"):
        return f"lower cutoff_len: {largest} is the largest part and grows with the length of rows"
    if largest in ("activations", "layer at work"):
        if run.model.disable_gradient_checkpointing:
            return "remove disable_gradient_checkpointing: activations are the largest part"
        return "lower cutoff_len or per_device_train_batch_size: activations are the largest part"
    if stage < 3:
        return f"set deepspeed=yaml/deepspeed/ds_z3.json, which splits the largest part ({largest}) over the GPUs"
    return f"use more GPUs, or deepspeed=yaml/deepspeed/ds_z3_offload.json: {largest} is the largest part"
