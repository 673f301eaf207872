"""Measures how the peak memory of a step grows with the length of its row, in each process, next to the estimate.

    python scripts/bench_row_memory.py                                                      # on 1, 2 and 4 processes
    python scripts/bench_row_memory.py --sequence-parallel 1 --tile 0 128 --layers 2 4      # whole, and in tiles

The model is a random Llama in float32, small enough that activations are most of the memory; all its parameters are
trained, with gradient checkpointing. Weights and gradients exist before the peak is measured. A row has a prompt and
two responses of 32 tokens. The processes run on the CPU and exchange over gloo; the largest of their peaks counts.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from measuring import MEASURABLE, peak, reset_peak
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from lf_longpo.plugin.check import memory_estimate
from lf_longpo.plugin.train.attention import use_packed_attention
from lf_longpo.plugin.train.packed_forward import token_values
from lf_longpo.plugin.train.packing import IGNORE, pack
from lf_longpo.plugin.train.sequence_exchange import SequenceGroup
from lf_longpo.plugin.train.sequence_parallel import RowSplitter
from lf_longpo.plugin.train.tiling import WHOLE, Tiles, tile_layers

RESPONSE, VOCABULARY, MIB = 32, 1024, 1 << 20


def row_of(length: int) -> dict[str, Any]:
    """A packed pair of so many tokens."""
    chance = torch.Generator().manual_seed(length)
    ids = torch.randint(3, VOCABULARY, (length,), generator=chance).tolist()
    prompt, first, second = ids[: -2 * RESPONSE], ids[-2 * RESPONSE : -RESPONSE], ids[-RESPONSE:]
    second[0] = (first[0] + 1) % VOCABULARY
    return pack([[(prompt + response, [IGNORE] * len(prompt) + response) for response in (first, second)]])


class Run(NamedTuple):
    """What is measured.

    Attributes:
        parallel: processes that compute a row together.
        layers: of the model.
        tile: tokens of a tile; 0: rows are not tiled.
        lengths: tokens of the rows.
    """

    parallel: int
    layers: int
    tile: int
    lengths: Sequence[int]

    @property
    def tiles(self) -> Tiles:
        return Tiles(self.tile, self.tile) if self.tile else WHOLE

    @property
    def config(self) -> LlamaConfig:
        sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": self.layers}
        return LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=8, num_key_value_heads=4, **sizes)


def growth(run: Run, index: int, store: str, results: Any) -> None:
    """In a process of its own: puts the memory that a step of each length adds at its peak, in bytes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=run.parallel)
    torch.manual_seed(0)
    model = LlamaForCausalLM(run.config).train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    use_packed_attention(model)
    tile_layers(model, run.tiles)
    splitter = RowSplitter(SequenceGroup(run.parallel), 8) if run.parallel > 1 else None
    found = []
    for length in (4 * RESPONSE, *run.lengths):  # the first one allocates gradients and buffers
        row = row_of(length)
        before = reset_peak()
        token_values(model, row, splitter).logps.sum().backward()
        found.append(peak() - before)
    results.put(found[1:])
    dist.destroy_process_group()


def measured(run: Run) -> list[int]:
    """The largest growth of a process at each length, in bytes."""
    context = multiprocessing.get_context("fork")  # the imports are done
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder, "store"))
        processes = [context.Process(target=growth, args=(run, index, store, results)) for index in range(run.parallel)]
        for process in processes:
            process.start()
        found = [results.get() for _ in processes]
        for process in processes:
            process.join()
    return [max(sizes) for sizes in zip(*found, strict=True)]


def estimated(run: Run) -> list[float]:
    """The activations of a step of each length by the estimate of `longpo check`, in bytes."""
    config = run.config
    key_value = config.head_dim * config.num_key_value_heads
    model = memory_estimate.Model(
        0, 0, run.layers, config.hidden_size, config.intermediate_size, config.hidden_size, key_value,
        config.num_attention_heads, VOCABULARY, 4, 4,
    )  # fmt: skip
    recipe: Any = SimpleNamespace(
        training=SimpleNamespace(use_cpu=True, gradient_accumulation_steps=1),
        model=SimpleNamespace(disable_gradient_checkpointing=False, use_unsloth_gc=False, quantization_bit=None),
        finetuning=SimpleNamespace(finetuning_type="full", use_ref_model=False),
    )
    memory_estimate.WHOLE = run.tiles
    machine = memory_estimate.Machine(run.parallel, 1 << 40, "this machine's CPU")
    rows = [memory_estimate.Rows(1, length, 2 * RESPONSE, masked=False) for length in run.lengths]
    return [memory_estimate.estimate(model, recipe, None, machine, row, True, run.parallel).total for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequence-parallel", type=int, nargs="+", default=[1, 2, 4], metavar="P")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096], help="tokens of the rows")
    parser.add_argument("--layers", type=int, nargs="+", default=[2])
    parser.add_argument("--tile", type=int, nargs="+", default=[0], help="tokens of a tile; 0: rows are not tiled")
    options = parser.parse_args()
    lengths = (f"{length:,} tokens: MiB" for length in options.lengths)
    table = Table("P", "layers", "tile", *lengths, "KiB a token", "estimated", "ratio")
    for layers, tile, parallel in product(options.layers, options.tile, options.sequence_parallel):
        run = Run(parallel, layers, tile, options.lengths)
        sizes = measured(run)
        tokens = 1024 * (run.lengths[-1] - run.lengths[0])
        slope, wanted = ((found[-1] - found[0]) / tokens for found in (sizes, estimated(run)))
        figures = (f"{size / MIB:.0f}" for size in sizes)
        cells = [
            str(parallel),
            str(layers),
            str(tile),
            *figures,
            f"{slope:.1f}",
            f"{wanted:.1f}",
            f"{wanted / slope:.2f}",
        ]
        table.add_row(*cells)
        print(*cells, flush=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:  # the C library reads it when a process starts
        small = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # a part of a row is small
        os.execve(sys.executable, [sys.executable, *sys.argv], dict(MEASURABLE) | small)
    main()
