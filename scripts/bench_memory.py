"""Compares the memory estimates of `longpo check` with the memory of real training, on small random Llama models.

    python scripts/bench_memory.py

Each case is a separate process: LLaMA-Factory, plain and as `longpo train`, trains two steps on pairs with equal
prompts. The memory that the second step adds at its peak is measured by the operating system (resident memory, CPU) or
by CUDA's allocator; weights, optimizer states and reference model, which are in memory before, are counted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from measuring import GIB, MEASURABLE, peak, reset_peak
from rich.console import Console
from rich.table import Table

from lf_longpo.plugin.check import memory_estimate
from lf_longpo.plugin.check.recipe_check import PACKED, check
from lf_longpo.plugin.train.tiling import WHOLE, Tiles

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
    "LoRA DPO, wide, tiles": (WIDE, {}),
    "full DPO, wide, tiles": (WIDE, {"finetuning_type": "full"}),
}
TILED = Tiles(128, 32)
"""The tiles of `longpo train` in the cases with tiles; on a CPU it computes whole rows otherwise."""


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
    row = {"prompt": "The lamp is lit. " * 140, "chosen": "It is lit. " * 60, "rejected": "It is not lit, or so. " * 24}
    rows = json.dumps([row] * 4)
    (folder / "rows.json").write_text(rows)
    info = {
        "pairs": {"file_name": "rows.json", "ranking": True, "columns": {key: key for key in row}},
        "answers": {"file_name": "rows.json", "columns": {"prompt": "prompt", "response": "chosen"}},
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))


def train(recipe: Path, ours: bool, tiled: bool) -> None:
    """In a process of its own: trains, and writes the peak of the second step, in bytes, next to the recipe."""
    import torch
    from llamafactory.train.tuner import run_exp
    from transformers import Trainer, TrainerCallback

    found = {}

    class Peak(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
            if state.global_step == 1:
                lasting = [*model.parameters(), *_tensors(more["optimizer"].state)]
                reference = getattr(trainers[0], "ref_model", None)
                lasting += reference.parameters() if reference is not None else []
                found["lasting"] = sum(tensor.numel() * tensor.itemsize for tensor in lasting)
                found["before"] = reset_peak()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                _peak_file(recipe).write_text(str(peak() - found["before"] + found["lasting"]))

    trainers = []
    made = Trainer.__init__
    Trainer.__init__ = lambda self, *args, **kwargs: (trainers.append(self), made(self, *args, **kwargs))[1]
    torch.manual_seed(0)
    settings = yaml.safe_load(recipe.read_text())
    if ours:
        from lf_longpo.plugin.train import tiling
        from lf_longpo.plugin.train.install import prepare as prepare_ours
        from lf_longpo.plugin.train.options import TrainOptions

        settings = prepare_ours(settings, TrainOptions(), print).settings
        if tiled:
            tiling.WHOLE = TILED
    run_exp(settings, callbacks=[Peak()])


def _peak_file(recipe: Path) -> Path:
    return recipe.with_suffix(".peak")


def _tensors(states: dict[Any, dict[str, Any]]) -> Iterator[Any]:
    return (value for state in states.values() for value in state.values() if hasattr(value, "numel"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="cases with this in their name")
    options = parser.parse_args()
    if options.child:
        return train(Path(options.child[0]), options.child[1] == PACKED, options.child[2] == "tiles")

    table = Table("case", "way", "estimated GiB", "measured GiB", "ratio", "largest parts (GiB)")
    for name, (sizes, changes) in CASES.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), sizes)
            settings = BASE | {"model_name_or_path": f"{folder}/model", "dataset_dir": folder, "use_cpu": True}
            settings |= changes | {"output_dir": f"{folder}/out"}
            recipe = Path(folder, "recipe.yaml")
            recipe.write_text(yaml.safe_dump(settings))
            tiles = "tiles" if name.endswith("tiles") else "whole"
            memory_estimate.WHOLE = TILED if tiles == "tiles" else WHOLE
            for way, memory in check(recipe).findings.facts["memory"]["ways"].items():
                estimated, measured = memory["total"] / GIB, measure(recipe, way, tiles) / GIB
                parts = sorted(memory["parts"].items(), key=lambda part: -part[1])[:3]
                listed = ", ".join(f"{part} {size / GIB:.2f}" for part, size in parts)
                figures = (f"{estimated:.2f}", f"{measured:.2f}", f"{estimated / measured:.2f}")
                table.add_row(name, way, *figures, listed)
                print(name, way, *figures, flush=True)
    Console(width=150).print(table)


def measure(recipe: Path, way: str, tiles: str) -> int:
    """The peak of a process that trains, in bytes."""
    command = [sys.executable, __file__, "--child", str(recipe), way, tiles]
    run = subprocess.run(command, capture_output=True, text=True, env=MEASURABLE | {"CUDA_VISIBLE_DEVICES": ""})
    if not _peak_file(recipe).is_file():
        raise SystemExit(run.stdout[-2000:] + run.stderr[-2000:])
    return int(_peak_file(recipe).read_text())


if __name__ == "__main__":
    main()
