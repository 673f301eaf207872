"""Measures a DPO step of plain LLaMA-Factory and of `longpo train` on the same pairs: time by phase, and peak memory.

    python scripts/bench_dpo.py                                                        # SmolLM2-135M, 2048 + 64 tokens
    python scripts/bench_dpo.py --responses 2 4 8 16                                   # several pairs of a prompt
    python scripts/bench_dpo.py --responses 2 4 --prompt 96 --response 24 --pairs 2    # seconds, to try it
    python scripts/bench_dpo.py --shape llama3-8b --prompt 8192 16384 32768 65536 --response 1024 --bf16     # one GPU
    python scripts/bench_dpo.py --sequence-parallel 2                                  # also split over two

A step has one prompt with all of its pairs: with G responses the best and the worst are a pair, then the second best
and the second worst, ..., G / 2 pairs. Plain LLaMA-Factory computes one pair at a time and accumulates their gradients.

Each trains two epochs in a separate process, through LLaMA-Factory's own entry point. The times are without the first
step (with it for `--pairs 1`, as the first epoch has no other) and without the pass before it, in which `longpo train`
computes the references for full tuning. Both load the
weights in the compute format: float32, or bfloat16 with --bf16. Peak memory is that of the whole process: weights,
optimizer states and everything else; of the first process where there are several. *sent* is what a process sends
to the others in a step of the first epoch.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from measuring import GIB, MEASURABLE, peak, reset_peak
from rich.console import Console
from rich.table import Table

SHAPES = {
    "small": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "hidden_size": 512,
        "intermediate_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
        "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "dtype": "float32",
    },
    "llama3-8b": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "dtype": "bfloat16",
    },
    "qwen2-7b": {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 152064, "hidden_size": 3584,
        "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "dtype": "bfloat16",
    },
}  # fmt: skip
PHASES = ("reference", "forward", "backward", "other")


def prepare(folder: Path, options: argparse.Namespace, prompt: int, responses: int) -> Path:
    """Pairs of the wanted lengths, and the recipe."""
    from lf_longpo.models.embedded import model_path

    model = model_path("smollm2-135m")
    settings: dict[str, Any] = {"model_name_or_path": options.model or str(model)}
    if options.shape:
        shaped = folder / "model"
        shaped.mkdir()
        for file in [*Path(model).glob("tokenizer*"), *Path(model).glob("special*")]:
            (shaped / file.name).write_bytes(file.read_bytes())
        (shaped / "config.json").write_text(json.dumps(SHAPES[options.shape]))
        settings = {"model_name_or_path": str(shaped), "train_from_scratch": True}
    # " lamp" is one token of every tokenizer here; what the tokens are does not bear on time or memory.
    rows = [
        {
            "prompt": f"{number}" + " lamp" * prompt,
            "chosen": " tower" * (options.response - rank),
            "rejected": " river" * (options.response - 8 - rank),
        }
        for number in range(options.pairs)
        for rank in range(responses // 2)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    info = {"pairs": {"file_name": "rows.json", "ranking": True, "columns": {column: column for column in rows[0]}}}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    settings |= {
        "stage": "dpo",
        "do_train": True,
        "finetuning_type": options.finetuning_type,
        "lora_target": "all",
        "dataset": "pairs",
        "dataset_dir": str(folder),
        "template": options.template,
        "cutoff_len": prompt + options.response + 256,
        "preprocessing_num_workers": 1,
        "output_dir": str(folder / "out"),
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "num_train_epochs": 2.0,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": responses // 2,
        "disable_shuffling": True,  # the pairs of a prompt are one step of plain LLaMA-Factory, too
        "bf16": options.bf16,
        "use_cpu": options.cpu,
    }
    recipe = folder / f"{time.monotonic_ns()}.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    return recipe


def train(recipe: Path, ours: bool, parallel: int) -> None:
    """In a process of its own: trains, and writes what every step took next to the recipe."""
    import torch
    from llamafactory.train.tuner import run_exp
    from transformers import Trainer, TrainerCallback

    from lf_longpo.plugin.train.compute_format import load_weights_in

    spent: dict[str, float] = defaultdict(float)
    nested: list[str] = []

    def timed(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            if nested:  # the reference's forward pass counts as reference
                return function(*args, **kwargs)
            nested.append(phase)
            start = _now()
            try:
                return function(*args, **kwargs)
            finally:
                spent[phase] += _now() - start
                nested.pop()

        return measured

    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    made = Trainer.__init__
    trainers: list[Any] = []

    def make(self: Trainer, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        trainers.append(self)
        self.concatenated_forward = timed("forward", self.concatenated_forward)
        self.compute_reference_log_probs = timed("reference", self.compute_reference_log_probs)
        self.accelerator.backward = timed("backward", self.accelerator.backward)

    Trainer.__init__ = make

    class Steps(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            spent.clear()
            if parallel > 1:
                trainers[0].splitter.group.sent = 0
            reset_peak()
            self.start = _now()

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            step = dict(spent) | {"step": _now() - self.start, "peak": peak(), "epoch": state.epoch}
            if parallel > 1:
                step["sent"] = trainers[0].splitter.group.sent
            if not state.is_world_process_zero:
                return
            with _steps_file(recipe).open("a") as file:
                file.write(json.dumps(step) + "\n")
            if state.global_step == 1:
                frozen = {str(parameter.dtype) for parameter in model.parameters() if not parameter.requires_grad}
                _formats_file(recipe).write_text(json.dumps(sorted(frozen or {str(model.dtype)})))

    settings = yaml.safe_load(recipe.read_text())
    load_weights_in(torch.bfloat16 if settings["bf16"] else torch.float32)
    if ours:
        from lf_longpo.plugin.train.install import install
        from lf_longpo.plugin.train.options import TrainOptions

        install(TrainOptions(sequence_parallel=parallel))
    run_exp(settings, callbacks=[Steps()])


def steps_of(recipe: Path, way: str, parallel: int, cpu: bool) -> list[dict[str, float]] | None:
    """What the steps of a run took; None where it ran out of memory."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={parallel}"] if parallel > 1 else []
    command = [sys.executable, *launcher, __file__, "--child", str(recipe), way, str(parallel)]
    environment = MEASURABLE | ({"CUDA_VISIBLE_DEVICES": ""} if cpu else {})
    log = recipe.with_suffix(".log")
    with log.open("w") as file:
        run = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        done = 0
        while run.poll() is None:
            time.sleep(0.5)
            if (steps := _steps_done(recipe)) > done:
                done = steps
                print(f"  {way}: step {done}", file=sys.stderr, flush=True)
    text = log.read_text(errors="replace")
    if "OutOfMemoryError" in text or run.returncode == -9:
        return None
    if run.returncode:
        raise SystemExit(text[-4000:])
    wanted = [f"torch.{'bfloat16' if yaml.safe_load(recipe.read_text())['bf16'] else 'float32'}"]
    if (formats := json.loads(_formats_file(recipe).read_text())) != wanted:
        raise SystemExit(f"{way}: weights are {', '.join(formats)}, not {wanted[0]}")
    steps = [json.loads(line) for line in _steps_file(recipe).read_text().splitlines()]
    return steps[1:] if len(steps) > 2 else steps


def _steps_done(recipe: Path) -> int:
    return len(_steps_file(recipe).read_text().splitlines()) if _steps_file(recipe).is_file() else 0


def _steps_file(recipe: Path) -> Path:
    return recipe.with_suffix(".steps")


def _formats_file(recipe: Path) -> Path:
    return recipe.with_suffix(".formats")


def figures(steps: list[dict[str, float]]) -> dict[str, float]:
    """Seconds a step by phase in the first epoch, in the second and over both, and the peak in bytes."""
    first = [step for step in steps if step["epoch"] <= 1]
    second = [step for step in steps if step["epoch"] > 1]
    times = {phase: mean(step.get(phase, 0.0) for step in first) for phase in PHASES[:3]}
    whole = mean(step["step"] for step in first)
    later = mean(step["step"] for step in second)
    times |= {"other": whole - sum(times.values()), "first epoch": whole, "second epoch": later}
    times |= {"both epochs": (whole + later) / 2, "peak": max(step["peak"] for step in steps)}
    return times | {"sent": mean(step.get("sent", 0) for step in first)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--model", help="model folder; default: the embedded SmolLM2-135M")
    parser.add_argument("--shape", choices=SHAPES, help="a random model of this shape")
    parser.add_argument("--template", default="smollm2")
    parser.add_argument("--finetuning-type", default="lora", choices=["lora", "full"])
    parser.add_argument("--prompt", type=int, nargs="+", default=[2048], help="tokens of the prompts")
    parser.add_argument("--response", type=int, default=64, help="tokens of the longer response")
    parser.add_argument("--responses", type=int, nargs="+", default=[2], help="responses of a prompt, even numbers")
    parser.add_argument("--pairs", type=int, default=3, help="prompts, each of which is a step")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="on the CPU even where there is a GPU")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--sequence-parallel", type=int, default=1, metavar="P", help="split rows over P processes too")
    options = parser.parse_args()
    if options.child:
        return train(Path(options.child[0]), options.child[1] != "stock", int(options.child[2]))
    if any(number % 2 or number < 2 for number in options.responses):
        parser.error("--responses must be even numbers, since each pair has two")
    if options.response < 8 + max(options.responses) // 2:
        parser.error(f"--response must be at least {8 + max(options.responses) // 2}, so that all responses differ")

    print(f"weights and computation: {'bfloat16' if options.bf16 else 'float32'}")
    table = Table()
    columns = (*PHASES, "first epoch", "second epoch", "both epochs")
    for column in ("prompt", "responses", "", *columns, "peak GiB", "sent MiB"):
        table.add_column(column, justify="right")
    for prompt, responses in product(options.prompt, options.responses):
        what = (f"{prompt:,}", f"{responses}")
        found = {}
        ways = {"stock": 1, "ours": 1} | (
            {} if options.sequence_parallel == 1 else {"split": options.sequence_parallel}
        )
        for way, parallel in ways.items():
            if way == "stock" and options.ours_only:
                continue
            with tempfile.TemporaryDirectory() as folder:
                steps = steps_of(prepare(Path(folder), options, prompt, responses), way, parallel, options.cpu)
            if steps is None:
                table.add_row(*what, way, *[""] * len(columns), "out of memory")
                continue
            found[way] = times = figures(steps)
            cells = [f"{times[column]:.2f}" for column in columns]
            sent = f"{times['sent'] / 2**20:.1f}"
            table.add_row(*what, way, *cells, f"{times['peak'] / GIB:.2f}", sent)
            rounded = {name: round(value, 3) for name, value in times.items()}
            print(prompt, responses, way, json.dumps(rounded), flush=True)
        for first, second in (("stock", "ours"), ("ours", "split")):
            if first in found and second in found:
                before, after = found[first], found[second]
                ratios = [f"{before[name] / after[name]:.2f}x" if after[name] > 1e-3 else "" for name in columns]
                table.add_row("", "", f"{second} / {first}", *ratios, f"{after['peak'] / before['peak']:.2f} of it")
        table.add_section()
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
