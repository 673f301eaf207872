"""Compares `longpo check`'s memory estimate with what LLaMA-Factory really takes, on small random Llama models.

    python scripts/bench_memory.py

Each case is a process of its own: LLaMA-Factory trains two steps on pairs of equal prompts. What the second adds at its
peak is taken from the operating system (resident memory, CPU) or from CUDA's allocator; weights, optimizer states and
reference model, which are there before, are counted.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

GIB = 1 << 30
BASE = {
    "do_train": True,
    "stage": "dpo",
    "finetuning_type": "lora",
    "lora_target": "all",
    "dataset": "pairs",
    "template": "smollm2",
    "cutoff_len": 1024,
    "preprocessing_num_workers": 1,
    "output_dir": "out",
    "overwrite_output_dir": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "max_steps": 2,
    "per_device_train_batch_size": 1,
}
NARROW = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}
WIDE = {"hidden_size": 1024, "intermediate_size": 12288, "num_hidden_layers": 4, "num_attention_heads": 8}
CASES = {
    "LoRA DPO": (NARROW, {}),
    "LoRA DPO, bf16": (NARROW, {"bf16": True}),
    "LoRA DPO, wide": (WIDE, {}),
    "LoRA DPO, wide, bf16": (WIDE, {"bf16": True}),
    "LoRA DPO, wide, no checkpointing": (WIDE, {"disable_gradient_checkpointing": True}),
    "LoRA DPO, orpo": (NARROW, {"pref_loss": "orpo"}),
    "full DPO": (NARROW, {"finetuning_type": "full"}),
    "full DPO, bf16": (NARROW, {"finetuning_type": "full", "bf16": True}),
    "full SFT": (NARROW, {"stage": "sft", "finetuning_type": "full", "dataset": "answers"}),
    "LoRA SFT, bf16": (NARROW, {"stage": "sft", "dataset": "answers", "bf16": True}),
}


def prepare(folder: Path, sizes: dict[str, int]) -> None:
    """A random Llama under the embedded model's tokenizer, and pairs of 1,024 tokens."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from lf_longpo.models.embedded import model_path

    tokenizer = AutoTokenizer.from_pretrained(model_path("smollm2-135m"))
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=4, max_position_embeddings=4096, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    row = {"prompt": "The lamp is lit. " * 188, "chosen": "It is lit. " * 12, "rejected": "It is not lit, or so. " * 6}
    rows = json.dumps([row] * 4)
    (folder / "rows.json").write_text(rows)
    info = {
        "pairs": {"file_name": "rows.json", "ranking": True, "columns": {key: key for key in row}},
        "answers": {"file_name": "rows.json", "columns": {"prompt": "prompt", "response": "chosen"}},
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))


def train(recipe: Path) -> None:
    """In a process of its own: trains, and prints the peak of the second step in bytes."""
    import torch
    from llamafactory.train.tuner import run_exp
    from transformers import Trainer, TrainerCallback

    found = {}

    class Peak(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
            if state.global_step == 1:
                lasting = [*model.parameters(), *_tensors(others["optimizer"].state)]
                reference = getattr(trainers[0], "ref_model", None)
                lasting += reference.parameters() if reference is not None else []
                found["lasting"] = sum(tensor.numel() * tensor.itemsize for tensor in lasting)
                found["before"] = _reset_peak()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                print(f"PEAK {_peak() - found['before'] + found['lasting']}", flush=True)

    trainers = []
    made = Trainer.__init__
    Trainer.__init__ = lambda self, *args, **kwargs: (trainers.append(self), made(self, *args, **kwargs))[1]
    torch.manual_seed(0)
    run_exp(yaml.safe_load(recipe.read_text()), callbacks=[Peak()])


def _tensors(states: dict[Any, dict[str, Any]]) -> Iterator[Any]:
    return (value for state in states.values() for value in state.values() if hasattr(value, "numel"))


def _reset_peak() -> int:
    """Starts a new peak; gives what is in use, in bytes."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="cases with this in their name")
    options = parser.parse_args()
    if options.child:
        return train(options.child)

    from lf_longpo.plugin.check.recipe_check import check

    table = Table("case", "estimated GiB", "measured GiB", "ratio", "largest parts (GiB)")
    for name, (sizes, changes) in CASES.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), sizes)
            settings = BASE | {"model_name_or_path": f"{folder}/model", "dataset_dir": folder, "use_cpu": True}
            settings |= changes | {"output_dir": f"{folder}/out"}
            recipe = Path(folder, "recipe.yaml")
            recipe.write_text(yaml.safe_dump(settings))
            memory = check(recipe).findings.facts["memory"]
            # Blocks go back to the system when they are freed, so that resident memory is what is in use.
            environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
            command = [sys.executable, __file__, "--child", str(recipe)]
            run = subprocess.run(command, capture_output=True, text=True, env=environment)
            found = [line for line in run.stdout.splitlines() if line.startswith("PEAK")]
            if not found:
                raise SystemExit(run.stdout[-2000:] + run.stderr[-2000:])
            measured = int(found[0].split()[1]) / GIB
        parts = sorted(memory["parts"].items(), key=lambda part: -part[1])[:3]
        told = ", ".join(f"{part} {size / GIB:.2f}" for part, size in parts)
        estimated = memory["total"] / GIB
        table.add_row(name, f"{estimated:.2f}", f"{measured:.2f}", f"{estimated / measured:.2f}", told)
        print(f"{name}: {estimated / measured:.2f}", flush=True)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
