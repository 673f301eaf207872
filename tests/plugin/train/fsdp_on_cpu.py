"""A process of `longpo train` under FSDP2 on a CPU, where accelerate uses FSDP on GPUs and other accelerators only.

Everything else is FSDP2's own: PyTorch splits the weights of each layer over gloo processes, gathers them, and reduces
gradients.
"""

import os
import sys
from typing import Any

from accelerate import accelerator
from accelerate.state import AcceleratorState, DistributedType, PartialState
from torch.distributed.tensor import DTensor

from lf_longpo.plugin.train import tiling
from lf_longpo.plugin.train.worker import main

# What `accelerate launch` sets for LLaMA-Factory's examples/accelerate/fsdp2_config.yaml.
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
TILE = "LONGPO_TEST_TILE"
"""Names the tokens of a tile of every row; on CPUs, rows are not tiled otherwise."""


split = []
"""The models whose weights FSDP2 split."""


def use_fsdp_on_cpus() -> None:
    prepare, made = accelerator.fsdp2_prepare_model, AcceleratorState.__init__

    def make(self: AcceleratorState, *arguments: Any, fsdp_plugin: Any = None, **others: Any) -> None:
        made(self, *arguments, fsdp_plugin=fsdp_plugin, **others)
        if fsdp_plugin is not None:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    def prepare_and_note(*arguments: Any) -> Any:
        split.append(prepare(*arguments))
        return split[-1]

    AcceleratorState.__init__, accelerator.fsdp2_prepare_model = make, prepare_and_note


if __name__ == "__main__":
    use_fsdp_on_cpus()
    if tile := int(os.environ.get(TILE, "0")):
        tiling.WHOLE = tiling.Tiles(tile, tile)
    exit_code = main(sys.argv[1:])
    assert exit_code or all(isinstance(parameter, DTensor) for parameter in split[0].parameters())
    sys.exit(exit_code)
