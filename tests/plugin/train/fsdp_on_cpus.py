"""The worker of `longpo train` under FSDP on CPUs with gloo.

accelerate takes FSDP's plugin on accelerators only: `AcceleratorState` ignores it for `MULTI_CPU`. Here it takes it on
CPUs too; everything after this choice is accelerate's, PyTorch's and ours.
"""

import sys
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from lf_longpo.plugin.train.worker import main

_choose = AcceleratorState.__init__


def _choose_on_cpus(state: AcceleratorState, *arguments: Any, fsdp_plugin: Any = None, **options: Any) -> None:
    _choose(state, *arguments, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None and state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    AcceleratorState.__init__ = _choose_on_cpus
    sys.exit(main(sys.argv[1:]))
