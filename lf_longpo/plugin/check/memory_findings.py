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
from lf_longpo.plugin.check.memory_changes import PackedRun, cheapest_changes, least_parallel
from lf_longpo.plugin.check.memory_estimate import (
    GIB,
    Machine,
    Model,
    estimate,
    longest_step,
    measure_model,
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
    parallel: int,
    findings: Findings,
) -> Model | None:
    """Reports which trainer the recipe gets and the memory of a step on one GPU; returns the model's sizes if known.

    Args:
        config: of the model.
        run: the recipe.
        encoding: the recipe's tokenizer and template, if they can be loaded.
        zero: DeepSpeed's or FSDP's splitting; None without them.
        machine: its GPUs share the run.
        kept: lengths of all examples after truncation; an example of cutoff_len is assumed if there are none.
        groups: the rows of `longpo train`, if pairs are trained.
        emulating: type of the device if it lacks bfloat16, else None.
        parallel: number of processes over which `longpo train` splits each row; 0: the least that fits.
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
        findings.facts["memory"] = _memory(models, run, zero, machine, kept, groups, parallel, findings)
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
    parallel: int,
    findings: Findings,
) -> dict[str, Any]:
    lengths = _lengths(run, kept)
    # The longest example differs: two rows with a prompt each, or one row with all responses.
    stock = longest_step(stock_rows(example, run) for example in lengths)
    estimates = {STOCK: estimate(models[STOCK], run, zero, machine, stock)}
    packed = None
    if PACKED in models:
        rows = [group.lengths for group in groups] or lengths
        packed = PackedRun(models[PACKED], run, zero, machine, rows, batch_of(groups, run))
        packed = replace(packed, parallel=parallel or least_parallel(packed) or machine.gpus)
        estimates[PACKED] = packed.estimate()
    ways: dict[str, dict[str, Any]] = {
        name: {
            "parts": {part: int(size) for part, size in found.parts.items() if size},
            "total": int(found.total),
            "fits": found.total <= machine.memory,
        }
        for name, found in estimates.items()
    }
    if not ways[STOCK]["fits"]:
        needed = f"a step of {STOCK} needs about {ways[STOCK]['total'] / GIB:.0f} GiB on each of {machine.gpus} GPUs"
        available = f"of {machine.memory / GIB:.0f} GiB ({machine.source})"
        findings.warn("memory", f"{needed} {available}; {_advice(ways, packed)}")
    return {
        "longest row": max((example.total for example in lengths), default=run.data.cutoff_len),
        "gpus": machine.gpus,
        "gpu memory": machine.memory,
        "told": machine.source,
        "sequence parallel": packed.parallel if packed else 1,
        "ways": ways,
    }


def _lengths(run: Arguments, kept: Sequence[Lengths]) -> Sequence[Lengths]:
    """Lengths of the examples; without data, a prompt and responses of cutoff_len, a tenth of it for a response."""
    if run.data.packing:
        return [Lengths(0, (run.data.cutoff_len + 1,))]
    response = run.data.cutoff_len // 10
    assumed = Lengths(run.data.cutoff_len - response, (response,) * (2 if run.data_stage == "rm" else 1))
    return kept or [assumed]


def _advice(ways: dict[str, Any], packed: PackedRun | None) -> str:
    """The command that fits, or else the cheapest changes after which a step fits."""
    if packed is None:
        return "lower cutoff_len, or change what keeps longpo train from accelerating the run"
    total = ways[PACKED]["total"] / GIB
    if ways[PACKED]["fits"]:
        return f"use {PACKED}, which needs {total:.0f} GiB for the same loss"
    changes = cheapest_changes(packed)
    if not changes:
        return f"{PACKED} needs {total:.0f} GiB; lower cutoff_len or use more GPUs: no other change is enough"
    listed = " and ".join(f"{change.what} ({change.cost})" for change in changes)
    least = changes[-1].run.estimate().total / GIB
    return f"{PACKED} needs {total:.0f} GiB; {listed}, and it needs {least:.0f} GiB"
