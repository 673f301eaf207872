"""Compares training with rows split over processes to training with whole rows, in a table.

    python scripts/check_sequence_parallel.py                   # every case: about 40 minutes on 2 cores
    python scripts/check_sequence_parallel.py --only zero3 sft  # the cases with one of these words in their names

Each case trains a tiny random model for five steps through `longpo train` and LLaMA-Factory, on gloo and in float32:
once in one process, and once in 2 or 4 processes with `--sequence-parallel`. It prints the largest relative difference
of the logged figures (loss, log-probabilities, rewards, gradient norm, evaluation) and of the trained parameters.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parent.parent
TOLERANCE = 1e-5
WORDS = "lamp tower river stone light word north harbour seven blue".split()
# Figures that training does not compute from the data alone.
UNCOMPARED = ("runtime", "per_second", "flos", "accuracies", "epoch")


class Case(NamedTuple):
    """One comparison.

    Attributes:
        family: of tests/tiny_models.py.
        heads: query heads and key-value heads.
        parallel: processes that share a row.
        processes: of the run.
        deepspeed: file in yaml/deepspeed; empty: DDP.
        changes: to the recipe.
        before: `--sequence-parallel` of a run that is stopped in the middle and resumed; 0: none.
    """

    family: str
    heads: tuple[int, int] = (4, 2)
    parallel: int = 2
    processes: int = 2
    deepspeed: str = ""
    changes: Mapping[str, Any] = {}
    before: int = 0


SFT = {"stage": "sft", "dataset": "answers", "pref_ftx": None}
FULL = {"finetuning_type": "full"}
TWO = {"per_device_train_batch_size": 2}
ACCUMULATED = {"gradient_accumulation_steps": 2}
EVALUATED = {"val_size": 5, "eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 2}
Z2, Z3 = "ds_z2.json", "ds_z3.json"


def cases() -> dict[str, Case]:
    """All comparisons by name."""
    found = {}
    for family in ("llama3", "qwen2", "qwen3", "glm4"):
        for heads in ((4, 2), (3, 1), (4, 1)):
            for tuning, changes in (("lora", {}), ("full", FULL)):
                found[f"{family} {heads[0]}/{heads[1]} heads, {tuning}, ddp"] = Case(family, heads, changes=changes)
        for name, deepspeed in (("zero2", Z2), ("zero3", Z3)):
            for tuning, changes in (("lora", {}), ("full", FULL)):
                found[f"{family}, {tuning}, {name}"] = Case(family, deepspeed=deepspeed, changes=changes)
        for tuning, changes in (("lora", SFT), ("full", SFT | FULL)):
            found[f"{family}, {tuning} sft"] = Case(family, changes=changes)
    for tuning, changes in (("lora", {}), ("full", FULL)):
        found |= {
            f"four processes, {tuning}": Case("llama3", (4, 2), 4, 4, changes=changes),
            f"four processes, 6 heads, {tuning}": Case("qwen2", (6, 2), 4, 4, changes=changes),
            f"four processes, zero3, {tuning}": Case("qwen2", (4, 2), 4, 4, Z3, changes),
            f"2 x 2 processes, {tuning}": Case("llama3", (4, 2), 2, 4, changes=changes),
            f"2 x 2 processes, 3 heads, zero2, {tuning}": Case("qwen2", (3, 1), 2, 4, Z2, changes),
            f"2 x 2 processes, zero3, {tuning}": Case("llama3", (4, 2), 2, 4, Z3, changes),
            f"2 x 2 processes, sft, {tuning}": Case("llama3", (4, 2), 2, 4, changes=changes | SFT | ACCUMULATED),
            f"two pairs a batch, {tuning}": Case("llama3", changes=changes | TWO),
            f"two pairs a batch, 3 heads, {tuning}": Case("qwen2", (3, 1), changes=changes | TWO),
            f"accumulated, {tuning}": Case("llama3", changes=changes | ACCUMULATED),
            f"accumulated, zero2, {tuning}": Case("llama3", deepspeed=Z2, changes=changes | ACCUMULATED),
            f"evaluation, {tuning}": Case("llama3", changes=changes | EVALUATED),
            f"evaluation, 2 x 2 processes, {tuning}": Case("llama3", (4, 2), 2, 4, changes=changes | EVALUATED),
            f"evaluation, 2 x 2 processes, sft, {tuning}": Case(
                "llama3", (4, 2), 2, 4, changes=changes | SFT | EVALUATED
            ),
            f"resumed from P = 1, {tuning}": Case("llama3", changes=changes, before=1),
            f"resumed from P = 1, zero2, {tuning}": Case("llama3", deepspeed=Z2, changes=changes, before=1),
            f"resumed from P = 1, zero3, {tuning}": Case("llama3", deepspeed=Z3, changes=changes, before=1),
            f"resumed from P = 4, {tuning}": Case("llama3", (4, 2), 2, 4, changes=changes, before=4),
        }
    for loss in ("hinge", "ipo", "kto_pair", "orpo", "simpo"):
        found[f"{loss}"] = Case("llama3", changes={"pref_loss": loss})
    return found | {
        "ld_alpha": Case("llama3", changes={"ld_alpha": 0.3}),
        "label smoothing": Case("llama3", changes={"dpo_label_smoothing": 0.1}),
        "bco": Case("llama3", changes={"pref_bco_weight": 0.5}),
        "freeze": Case("llama3", changes={"finetuning_type": "freeze", "freeze_trainable_layers": 1}),
        "no checkpointing": Case("llama3", changes={"disable_gradient_checkpointing": True}),
        "checkpoints that are not reentrant": Case("llama3", changes={"use_reentrant_gc": False}),
        "sft, tokens averaged in each process": Case(
            "llama3", changes=SFT | ACCUMULATED | {"average_tokens_across_devices": False}
        ),
        "sft, prompts too": Case("llama3", changes=SFT | {"train_on_prompt": True}),
        "two epochs": Case("llama3", changes={"max_steps": -1, "num_train_epochs": 2.0}),
        "another learning rate": Case("glm4_0414", changes={"learning_rate": 5e-3}),
    }


def compare(case: Case, folder: Path) -> tuple[float, float]:
    """Trains both ways; the largest relative differences of the logged figures and of the parameters."""
    settings = recipe(case, folder)
    groups = case.processes // case.parallel
    whole = settings | {"gradient_accumulation_steps": settings.get("gradient_accumulation_steps", 1) * groups}
    if "per_device_eval_batch_size" in settings:
        # A figure of an evaluation is a mean over batches.
        whole["per_device_eval_batch_size"] = 1
        settings["per_device_eval_batch_size"] = 1
    train(whole, folder / "whole", 1, 1)
    if case.deepspeed:
        settings["deepspeed"] = str(REPOSITORY / "yaml/deepspeed" / case.deepspeed)
    if case.deepspeed == Z3:
        del settings["use_cpu"]  # with it, transformers leaves the weights whole
    if case.before:
        first = settings | {"save_strategy": "steps", "save_steps": 2}
        ways = case.processes // case.before
        accumulated = settings.get("gradient_accumulation_steps", 1) * groups
        stopped = first | {"gradient_accumulation_steps": accumulated / ways} if ways > groups else first
        train(stopped | {"max_steps": 5}, folder / "split", case.before, case.processes, stop=3)
        settings = first
    train(settings, folder / "split", case.parallel, case.processes)
    return figures(folder / "whole", folder / "split"), parameters(folder / "whole", folder / "split")
