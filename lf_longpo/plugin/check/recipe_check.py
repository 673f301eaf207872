"""`longpo check RECIPE`: everything that can be known before training, in one report."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.config.shipped import resolve
from lf_longpo.errors import UserError, first_line
from lf_longpo.models.number_format import missing_bfloat16, replacement
from lf_longpo.plugin.check.datasets import RawDataset, load_datasets
from lf_longpo.plugin.check.deepspeed import Zero, check_deepspeed, read_deepspeed, zero_of
from lf_longpo.plugin.check.examples import MEASURED, Lengths, Measured, measure, report
from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.check.memory_estimate import GIB, Machine, estimate, measure_model, packed_rows, stock_rows
from lf_longpo.plugin.check.prerequisites import check_prerequisites
from lf_longpo.plugin.check.settings_check import check_ignored, check_values
from lf_longpo.plugin.check.template import Encoding, check_template_name, load_encoding, load_model_config
from lf_longpo.plugin.check.trainer import reason_for_plain
from lf_longpo.plugin.recipe import Arguments, parse_recipe, read_recipe
from lf_longpo.plugin.train.compute_format import emulates

# What is assumed where there is no GPU and none is told: the machine that the recipes' headers name.
_ASSUMED = (8, 80 * GIB)
# Settings that LLaMA-Factory takes only where a GPU is; they do not bear on what is checked.
_GPU_ONLY = ("pure_bf16", "tf32", "fp8")
STOCK, PACKED = "llamafactory-cli train", "longpo train"


class Checked(NamedTuple):
    """A recipe, checked.

    Attributes:
        findings: what was found.
        run: the recipe as LLaMA-Factory sees it; None where it refuses it.
        encoding: its tokenizer and template; None where they are not to be had.
        datasets: those that could be loaded, with their lengths.
    """

    findings: Findings
    run: Arguments | None = None
    encoding: Encoding | None = None
    datasets: Sequence[tuple[RawDataset, Measured]] = ()


def check(path: str | Path, overrides: Sequence[str] = (), gpus: int = 0, gpu_memory: float = 0) -> Checked:
    """Checks a training recipe without training, on any machine.

    Args:
        path: the recipe.
        overrides: key=value on top of it.
        gpus: how many GPUs will share the run; 0: this machine's, or 8 where it has none.
        gpu_memory: memory of one in GiB; 0: this machine's, or 80.

    Raises:
        UserError: the recipe is missing or not YAML.
    """
    findings = Findings()
    path = resolve(path)
    settings = read_recipe(path, overrides)
    check_values(settings, findings)
    deepspeed = read_deepspeed(settings, findings)
    parses = not findings.errors and bool(settings.get("model_name_or_path"))
    check_prerequisites(path, settings, findings)
    if not parses:  # LLaMA-Factory's parser would stop at the first of them
        return Checked(findings)
    trains = _trains(settings)
    apart = (*_GPU_ONLY, "deepspeed") if trains else (*_GPU_ONLY, "deepspeed", "infer_backend")
    try:
        run = parse_recipe({key: value for key, value in settings.items() if key not in apart} | {"use_cpu": True})
    except UserError as error:
        findings.error(str(path), f"LLaMA-Factory refuses it: {error}")
        return Checked(findings)
    run.training.use_cpu = bool(settings.get("use_cpu"))
    if settings.get("pure_bf16"):
        import torch

        run.finetuning.pure_bf16, run.model.compute_dtype = True, torch.bfloat16
    fits = check_template_name(run, findings)
    there = not any(setting == "model_name_or_path" for setting, _ in findings.errors)
    config = load_model_config(run, findings) if there else None
    encoding = load_encoding(run, config, findings) if config and fits else None
    if not trains:
        return Checked(findings, run, encoding)
    check_ignored(settings, run, findings)
    if run.training.resume_from_checkpoint:
        findings.facts["resumes from"] = str(run.training.resume_from_checkpoint)
    datasets = load_datasets(Path(path), run, findings)
    if encoding is None or run.data_stage not in MEASURED:
        datasets = []
    measured = [(dataset, measure(dataset, run, encoding)) for dataset in datasets]
    for dataset, lengths in measured:
        report(dataset.name, lengths, run, findings)
    machine = _machine(run, gpus, gpu_memory)
    emulating = emulates(settings) if machine.here else None
    if emulating:
        _warn_of_emulation(emulating, findings)
    steps = _report_steps(measured, run, machine, findings)
    if deepspeed is not None:
        check_deepspeed(deepspeed, run, machine.gpus, steps, findings)
    if config:
        zero = zero_of(deepspeed) if deepspeed is not None else None
        try:
            reason = reason_for_plain(config, run, encoding)
            findings.facts["longpo train"] = {"accelerated": reason is None, "reason": reason}
            findings.facts["memory"] = _memory(
                config, run, zero, machine, measured, reason is None, emulating, findings
            )
        except (
            ValueError,
            AttributeError,
            OSError,
        ) as error:  # no causal language model, or one that names its sizes otherwise
            findings.warn("memory", f"is not estimated for this model: {first_line(error)}")
    return Checked(findings, run, encoding, measured)


def _trains(settings: Mapping[str, Any]) -> bool:
    """Whether the recipe is for `llamafactory-cli train`, and not for `export`, `api` or `chat`."""
    return any(settings.get(name) for name in ("do_train", "do_eval", "do_predict", "dataset", "eval_dataset"))


def _machine(run: Arguments, gpus: int, gpu_memory: float) -> Machine:
    import torch

    if run.training.use_cpu and not gpus:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Machine(1, memory, "this machine's CPU", here=True)
    there, size = _ASSUMED
    told = "assumed; --gpus and --gpu-memory tell otherwise"
    if torch.cuda.is_available():
        there, size = torch.cuda.device_count(), torch.cuda.get_device_properties(0).total_memory
        told = torch.cuda.get_device_name(0)
    if gpus or gpu_memory:
        told = "as told"
    here = torch.cuda.is_available() and not (gpus or gpu_memory)
    return Machine(gpus or there, int(gpu_memory * GIB) or size, told, here)


def _warn_of_emulation(device: str, findings: Findings) -> None:
    findings.warn(
        "bf16",
        f"{missing_bfloat16(device)} under {PACKED}; plain {STOCK} keeps the format of the model's files, which can be "
        f"many times slower. Start it with {PACKED}",
    )


def _report_steps(
    measured: Sequence[tuple[RawDataset, Measured]], run: Arguments, machine: Machine, findings: Findings
) -> int:
    names = set(run.data.dataset or [])
    examples = sum(len(lengths.kept) for dataset, lengths in measured if dataset.name in names)
    if not examples:
        return max(run.training.max_steps, 1)
    held_out = run.data.val_size if run.data.val_size >= 1 else run.data.val_size * examples
    batch = run.training.per_device_train_batch_size * run.training.gradient_accumulation_steps * machine.gpus
    epoch = -(-int(examples - held_out) // batch)
    steps = run.training.max_steps if run.training.max_steps > 0 else int(epoch * run.training.num_train_epochs)
    findings.facts["steps"] = {"examples a step": batch, "steps an epoch": epoch, "steps in all": steps}
    return max(steps, 1)


def _memory(
    config: Any,
    run: Arguments,
    zero: Zero | None,
    machine: Machine,
    measured: Sequence[tuple[RawDataset, Measured]],
    accelerated: bool,
    emulating: str | None,
    findings: Findings,
) -> dict[str, Any]:
    kept = [lengths for _, examples in measured for lengths in examples.kept]
    # Without the data: a prompt up to the cutoff length with responses of a tenth of it.
    response = run.data.cutoff_len // 10
    assumed = Lengths(run.data.cutoff_len - response, (response,) * (2 if run.data_stage == "rm" else 1))
    if run.data.packing:
        kept, assumed = [], Lengths(0, (run.data.cutoff_len + 1,))
    model = measure_model(config, run)
    ways = {}
    for name, rows_of in ((STOCK, stock_rows), (PACKED, packed_rows)):
        if name == PACKED and not accelerated:
            continue
        # Which example is longest differs: two rows with a prompt each, or one with both responses.
        rows = max(
            (rows_of(lengths, run) for lengths in (kept or [assumed])), key=lambda rows: rows.count * rows.length
        )
        sizes = model
        if name == PACKED and emulating:
            width = replacement(emulating).itemsize
            sizes = replace(model, stored=width, compute=width)
        parts, total = estimate(sizes, run, zero, machine, rows, packed=name == PACKED)
        ways[name] = {
            "parts": {part: int(size) for part, size in parts.items() if size},
            "total": int(total),
            "fits": total <= machine.memory,
        }
    if not ways[STOCK]["fits"]:
        total, parts = ways[STOCK]["total"], ways[STOCK]["parts"]
        needed = f"a step of {STOCK} needs about {total / GIB:.0f} GiB on each of {machine.gpus} GPUs"
        there = f"of {machine.memory / GIB:.0f} GiB ({machine.told})"
        findings.warn("memory", f"{needed} {there}; {_advice(ways, parts, run, zero)}")
    longest = max((lengths.total for lengths in kept), default=run.data.cutoff_len)
    told = {"longest row": longest, "gpus": machine.gpus, "gpu memory": machine.memory, "told": machine.told}
    return told | {"ways": ways}


def _advice(ways: dict[str, Any], parts: dict[str, float], run: Arguments, zero: Zero | None) -> str:
    """What fits, or else what lowers the largest part most."""
    if PACKED in ways and ways[PACKED]["fits"]:
        return f"{PACKED} needs {ways[PACKED]['total'] / GIB:.0f} GiB for the same loss"
    largest = max(parts, key=lambda part: parts[part])
    stage = zero.stage if zero else 0
    if largest in ("logits", "attention mask"):
        return f"the {largest} grow with the rows' length: lower cutoff_len"
    if largest in ("activations", "layer at work"):
        if run.model.disable_gradient_checkpointing:
            return "activations are largest: leave out disable_gradient_checkpointing"
        return "activations are largest: lower cutoff_len or per_device_train_batch_size"
    if stage < 3:
        return f"the {largest} are largest: deepspeed=yaml/deepspeed/ds_z3.json splits them over the GPUs"
    return f"the {largest} are largest: more GPUs, or deepspeed=yaml/deepspeed/ds_z3_offload.json"
