"""`longpo check RECIPE`: everything that can be checked before training, in one report."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.config.shipped import resolve
from lf_longpo.errors import UserError
from lf_longpo.models.number_format import missing_bfloat16
from lf_longpo.plugin.check.datasets import RawDataset, load_datasets
from lf_longpo.plugin.check.deepspeed import check_deepspeed, fsdp_of, read_deepspeed, zero_of
from lf_longpo.plugin.check.example_findings import report_examples
from lf_longpo.plugin.check.examples import MEASURED, Measured, measure
from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.check.memory_estimate import Machine
from lf_longpo.plugin.check.memory_findings import PACKED, STOCK, machine_of, report_memory
from lf_longpo.plugin.check.prerequisites import check_prerequisites
from lf_longpo.plugin.check.prompt_groups import Group, groups_of, pairs_per_group, report_groups
from lf_longpo.plugin.check.settings_check import check_ignored, check_values
from lf_longpo.plugin.check.template import Encoding, check_template_name, load_encoding, load_model_config
from lf_longpo.plugin.recipe import Arguments, parse_recipe, read_recipe
from lf_longpo.plugin.train.compute_format import emulates
from lf_longpo.plugin.train.groups import step_size

# Settings that LLaMA-Factory accepts only on a machine with a GPU; the checks do not depend on them.
_GPU_ONLY = ("pure_bf16", "tf32", "fp8")


class Checked(NamedTuple):
    """A recipe after its check.

    Attributes:
        findings: the results.
        run: the recipe as LLaMA-Factory parses it; None if it refuses it.
        encoding: the recipe's tokenizer and template; None if they cannot be loaded.
        datasets: the data sets that could be loaded, with their measurements.
    """

    findings: Findings
    run: Arguments | None = None
    encoding: Encoding | None = None
    datasets: Sequence[tuple[RawDataset, Measured]] = ()


def check(
    path: str | Path,
    overrides: Sequence[str] = (),
    gpus: int = 0,
    gpu_memory: float = 0,
    parallel: int = 1,
    max_row_tokens: int | None = None,
) -> Checked:
    """Checks a training recipe without training, on any machine.

    Args:
        path: the recipe.
        overrides: key=value; they replace settings of the recipe.
        gpus: number of GPUs that share the run; 0: this machine's, or 8 if it has none.
        gpu_memory: memory of one GPU in GiB; 0: this machine's, or 80.
        parallel: number of processes over which `longpo train` splits each row; 0: the least that fits.
        max_row_tokens: the option of `longpo train`.

    Raises:
        UserError: the recipe is missing or not YAML, or `parallel` does not divide the number of GPUs.
    """
    findings = Findings()
    path = resolve(path)
    settings = read_recipe(path, overrides)
    check_values(settings, findings)
    deepspeed = read_deepspeed(settings, findings)
    parses = not findings.errors and bool(settings.get("model_name_or_path"))
    check_prerequisites(path, settings, findings)
    # LLaMA-Factory's parser would stop at the first of these errors.
    run = _parsed(path, settings, findings) if parses else None
    if run is None:
        return Checked(findings)
    has_template = check_template_name(run, findings)
    has_model = not any(setting == "model_name_or_path" for setting, _ in findings.errors)
    config = load_model_config(run, findings) if has_model else None
    encoding = load_encoding(run, config, findings) if config and has_template else None
    if not _trains(settings):
        return Checked(findings, run, encoding)
    check_ignored(settings, run, findings)
    if run.training.resume_from_checkpoint:
        findings.facts["resumes from"] = str(run.training.resume_from_checkpoint)
    measured = _measured(Path(path), run, encoding, findings)
    machine = machine_of(run, gpus, gpu_memory)
    _check_divides(parallel, machine.gpus)
    emulating = emulates(settings) if machine.here else None
    if emulating:
        _warn_of_emulation(emulating, findings)
    trained = [examples for dataset, examples in measured if dataset.name in (run.data.dataset or [])]
    groups = groups_of(trained, max_row_tokens) if run.data_stage == "rm" else []
    model = None
    if config:
        zero = zero_of(deepspeed) if deepspeed is not None else fsdp_of(os.environ)
        kept = [lengths for _, examples in measured for lengths in examples.kept]
        model = report_memory(config, run, encoding, zero, machine, kept, groups, emulating, parallel, findings)
    steps = _report_steps(trained, groups, run, machine, parallel or 1, findings)
    if deepspeed is not None:
        check_deepspeed(deepspeed, run, machine.gpus, steps, findings)
    if findings.facts.get("longpo train", {}).get("accelerated"):
        report_groups(groups, model, max_row_tokens, findings)
    return Checked(findings, run, encoding, measured)


def _check_divides(parallel: int, gpus: int) -> None:
    if parallel and gpus % parallel:
        raise UserError(f"--sequence-parallel {parallel}: set it to a divisor of the {gpus} GPUs")


def _parsed(path: str | Path, settings: dict[str, Any], findings: Findings) -> Arguments | None:
    """The recipe as LLaMA-Factory parses it; None, with a finding, if it refuses it."""
    ignored = (*_GPU_ONLY, "deepspeed") if _trains(settings) else (*_GPU_ONLY, "deepspeed", "infer_backend")
    try:
        run = parse_recipe({key: value for key, value in settings.items() if key not in ignored} | {"use_cpu": True})
    except UserError as error:
        findings.error(str(path), f"LLaMA-Factory refuses it: {error}")
        return None
    run.training.use_cpu = bool(settings.get("use_cpu"))
    if settings.get("pure_bf16"):
        import torch

        run.finetuning.pure_bf16, run.model.compute_dtype = True, torch.bfloat16
    return run


def _trains(settings: Mapping[str, Any]) -> bool:
    """Whether the recipe is for `llamafactory-cli train`, and not for `export`, `api` or `chat`."""
    return any(settings.get(name) for name in ("do_train", "do_eval", "do_predict", "dataset", "eval_dataset"))


def _measured(
    path: Path, run: Arguments, encoding: Encoding | None, findings: Findings
) -> list[tuple[RawDataset, Measured]]:
    datasets = load_datasets(path, run, findings)
    if encoding is None or run.data_stage not in MEASURED:
        return []
    measured = [(dataset, measure(dataset, run, encoding)) for dataset in datasets]
    for dataset, lengths in measured:
        report_examples(dataset.name, lengths, run, findings)
    return measured


def _warn_of_emulation(device: str, findings: Findings) -> None:
    findings.warn(
        "bf16",
        f"{missing_bfloat16(device)} under {PACKED}; plain {STOCK} keeps the format of the model's files, which can be "
        f"many times slower; start it with {PACKED}",
    )


def _report_steps(
    trained: Sequence[Measured],
    groups: Sequence[Group],
    run: Arguments,
    machine: Machine,
    parallel: int,
    findings: Findings,
) -> int:
    """Reports the steps of the run, by the trainer that was found; returns their number.

    Args:
        trained: the training data.
        groups: the rows of `longpo train`, if pairs are trained.
        run: the recipe.
        machine: its devices train.
        parallel: number of processes over which each row is split, where no memory was estimated.
        findings: has the trainer and the memory; gets the results.
    """
    facts = findings.facts
    if not facts.get("longpo train", {}).get("accelerated", True):
        groups = []  # plain LLaMA-Factory trains on pairs
    processes = machine.gpus // facts.get("memory", {}).get("sequence parallel", parallel)
    examples = sum(len(lengths.kept) for lengths in trained)
    if not examples:
        return max(run.training.max_steps, 1)
    training, mean = run.training, pairs_per_group(groups)
    held_out = run.data.val_size if run.data.val_size >= 1 else run.data.val_size * examples
    size = step_size(training.per_device_train_batch_size, training.gradient_accumulation_steps, mean)
    batch = size.batch * size.accumulation * processes
    epoch = -(-int((examples - held_out) / mean) // batch)
    steps = training.max_steps if training.max_steps > 0 else int(epoch * training.num_train_epochs)
    facts["steps"] = {
        "examples a step": round(batch * mean),
        "steps an epoch": epoch,
        "steps in all": steps,
    }
    return max(steps, 1)
