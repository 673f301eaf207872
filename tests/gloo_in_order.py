"""Imported by prepared processes, which train: every gather has arrived when it is started.

DeepSpeed 0.18.4's ZeRO-3 starts one gather per parameter and waits for the last one alone
(`_allgather_params_coalesced`). NCCL, on GPUs, finishes them in order; gloo, on CPUs, does not, and a late one
overwrites weights that were loaded in the meantime: one load in four of a model with biases held garbage.
"""

import torch.distributed

_gather = torch.distributed.all_gather_into_tensor


def _gather_in_order(*arguments, **options):
    work = _gather(*arguments, **options)
    if work is not None:
        work.wait()
    return work


torch.distributed.all_gather_into_tensor = _gather_in_order
