"""Prints the tables of docs/hardware.md: the smallest GPU on which a DPO step fits, by the estimate of `longpo check`.

    python scripts/hardware_table.py                  # all models, as Markdown
    python scripts/hardware_table.py --model Qwen3-8B

The settings are those of the shipped recipes `llama3_dpo` (LoRA, ZeRO-2) and `llama3_longreward_dpo` (all parameters,
ZeRO-3), one pair per GPU, with FlashAttention-2. Nothing is downloaded: the shapes of the models are written below.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from lf_longpo.config.shipped import resolve
from lf_longpo.plugin.check.deepspeed import Zero, zero_of
from lf_longpo.plugin.check.examples import Lengths
from lf_longpo.plugin.check.memory_estimate import (
    GIB,
    Machine,
    Model,
    estimate,
    measure_model,
    packed_rows,
    stock_rows,
)
from lf_longpo.plugin.recipe import Arguments, parse_recipe, read_recipe

# From the config.json of each model on the hub.
SHAPES: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "Qwen3-4B": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-7B": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    "Llama-3.1-8B": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
    "Qwen3-8B": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
    "GLM-4-9B-0414": {
        "model_type": "glm4",
        "vocab_size": 151552,
        "hidden_size": 4096,
        "intermediate_size": 13696,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "attention_bias": True,
        "pad_token_id": 151329,
        "tie_word_embeddings": False,
    },
}
METHODS = {"LoRA": "llama3_dpo", "All parameters": "llama3_longreward_dpo"}
"""The shipped recipe with the settings of each method."""
GPUS = (1, 8)
MEMORIES = (24, 48, 80, 141)
"""GiB of one GPU."""
CUTOFFS = {"8k": 8192, "16k": 16384, "32k": 32768, "64k": 65536, "128k": 131072}
"""Tokens of a prompt and the longer response."""
RESPONSE = 1024
"""Tokens of each response."""
WINDOWS = {"SmolLM2-135M": 8192}
"""Tokens that a model reads, where that is less than the longest row."""


@cache
def recipe(method: str) -> tuple[Arguments, Zero]:
    """The arguments of a method's recipe and DeepSpeed's splitting."""
    settings = read_recipe(resolve(f"yaml/{METHODS[method]}.yaml"))
    zero = zero_of(json.loads(Path(settings.pop("deepspeed")).read_text(encoding="utf-8")))
    # The parser refuses a recipe for GPUs on a machine without them.
    run = parse_recipe(settings | {"use_cpu": True})
    run.training.use_cpu = False
    return run, zero


def sizes(model: str, method: str) -> Model:
    """The model's sizes in bfloat16, as it is on the hub."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(**SHAPES[model], dtype="bfloat16")
    return measure_model(config, recipe(method)[0])


def smallest(model: Model, method: str, gpus: int, cutoff: int, packed: bool) -> str:
    """GiB of the smallest GPU on which the step fits; a dash if it fits none."""
    run, zero = recipe(method)
    lengths = Lengths(cutoff - RESPONSE, (RESPONSE, RESPONSE))
    batch = run.training.per_device_train_batch_size
    rows = packed_rows(lengths, batch) if packed else replace(stock_rows(lengths, run), masked=False)
    for memory in MEMORIES:
        machine = Machine(gpus, memory * GIB, "")
        if estimate(model, run, zero, machine, rows, packed).total <= machine.memory:
            return str(memory)
    return "–"


def table_rows(model: str, method: str, gpus: int) -> Iterator[str]:
    """The two rows of a model in the table of a method and a number of GPUs."""
    measured = sizes(model, method)
    window = WINDOWS.get(model, max(CUTOFFS.values()))
    for packed, command in ((False, "LLaMA-Factory"), (True, "`longpo train`")):
        cells = [smallest(measured, method, gpus, cutoff, packed) for cutoff in CUTOFFS.values() if cutoff <= window]
        cells += ["" for _ in CUTOFFS][len(cells) :]
        yield f"| {model} | {command} | {' | '.join(cells)} |"


def tables(models: list[str]) -> Iterator[str]:
    """All tables, line by line. Numbers of GPUs with the same table share it."""
    for method in METHODS:
        headings: dict[tuple[str, ...], str] = {}
        for gpus in GPUS:
            rows = tuple(row for model in models for row in table_rows(model, method, gpus))
            headings[rows] = f"{headings[rows]} or {gpus}" if rows in headings else str(gpus)
        for rows, count in headings.items():
            yield f"### {method}, {count} GPU{'s' * (count != '1')}\n"
            yield f"| model | command | {' | '.join(CUTOFFS)} |"
            yield "| --- " * (2 + len(CUTOFFS)) + "|"
            yield from rows
            yield ""


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, help="only this model")
    options = parser.parse_args()
    print("\n".join(tables([options.model] if options.model else list(SHAPES))).rstrip())


if __name__ == "__main__":
    main()
