"""Prints the table of docs/long-context-dpo.md: DPO steps of 8k to 512k tokens on 1 to 16 GPUs of 80 GB, by estimate.

    python scripts/long_context_table.py                     # all methods, as Markdown
    python scripts/long_context_table.py --method LoRA

A cell is the least number P of GPUs that share a row (`--sequence-parallel P`) with which a step of `longpo train`
fits. A star means that checkpoints are kept in CPU memory (`use_unsloth_gc: true`), which is preferred to a larger P.
The settings are those of `hardware_table.py`, with ZeRO-3 in every case. Nothing is downloaded.
"""

import argparse
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from functools import cache

from hardware_table import RESPONSE, SHAPES, recipe

from lf_longpo.plugin.check.deepspeed import Zero
from lf_longpo.plugin.check.examples import Lengths
from lf_longpo.plugin.check.memory_changes import PackedRun, least_parallel
from lf_longpo.plugin.check.memory_estimate import GIB, Machine, Model, measure_model
from lf_longpo.plugin.recipe import Arguments

MODELS = {name: SHAPES[name] for name in ("Llama-3.1-8B", "Qwen2.5-7B", "GLM-4-9B-0414")} | {
    "Qwen2.5-72B": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    }
}
"""From the config.json of each model on the hub."""
KINDS = {"LoRA": ("LoRA", None), "QLoRA": ("LoRA", 4), "All parameters": ("All parameters", None)}
"""The recipe of each method in `hardware_table.py`, and the bits of frozen weights."""
GPUS = (1, 2, 8, 16)
MEMORY = 80 * GIB
LENGTHS = {f"{size}k": size * 1024 for size in (8, 16, 32, 64, 128, 256, 512)}
"""Tokens of the prompt and the longer response."""


@cache
def arguments(method: str, offloaded: bool) -> Arguments:
    """The recipe of a method, with checkpoints on the GPU or in CPU memory."""
    name, bits = KINDS[method]
    run = recipe(name)[0]
    model = copy(run.model)
    model.quantization_bit, model.use_unsloth_gc = bits, offloaded
    return run._replace(model=model)


@cache
def sizes(name: str, method: str) -> Model:
    """The model's sizes in bfloat16."""
    from transformers import AutoConfig

    return measure_model(AutoConfig.for_model(**MODELS[name], dtype="bfloat16"), arguments(method, False))


def packed_run(name: str, method: str, gpus: int, length: int, offloaded: bool) -> PackedRun:
    """One pair per group of GPUs; `length` counts the prompt and one response."""
    lengths = [Lengths(length - RESPONSE, (RESPONSE, RESPONSE))]
    machine = Machine(gpus, MEMORY, "")
    return PackedRun(sizes(name, method), arguments(method, offloaded), Zero(3), machine, lengths, batch=1)


def cell(name: str, method: str, gpus: int, length: int) -> str:
    """The least P that fits, with a star where checkpoints are in CPU memory; a dash where none fits."""
    on_gpu, offloaded = (packed_run(name, method, gpus, length, offloaded) for offloaded in (False, True))
    least = least_parallel(offloaded)
    if least is None:
        return "–"
    return str(least) if replace(on_gpu, parallel=least).fits() else f"{least}*"


def rows(name: str, method: str) -> Iterator[str]:
    """The rows of a model in the table of a method."""
    for gpus in GPUS:
        cells = [cell(name, method, gpus, length) for length in LENGTHS.values()]
        yield f"| {name} | {gpus} | {' | '.join(cells)} |"


def tables(methods: list[str]) -> Iterator[str]:
    """All tables, line by line."""
    for method in methods:
        yield f"### {method}\n"
        yield f"| model | GPUs | {' | '.join(LENGTHS)} |"
        yield "| --- " * (2 + len(LENGTHS)) + "|"
        for name in MODELS:
            yield from rows(name, method)
        yield ""


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=KINDS, help="only this method")
    options = parser.parse_args()
    print("\n".join(tables([options.method] if options.method else list(KINDS))).rstrip())


if __name__ == "__main__":
    main()
