"""Whether a device multiplies bfloat16 matrices natively, and the number format to use if it does not.

PyTorch computes bfloat16 on every device. Without instructions for it, matrix products are emulated, which takes 3 to
100 times as long as float32 on a CPU.
"""

import os
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Environment variable: 1 treats every device as one without bfloat16 instructions, to test this path anywhere.
SWITCH = "LONGPO_NO_BFLOAT16"
# Names of torch.cpu.get_capabilities: x86 with AVX-512 or AMX, and ARM.
_CPU_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def has_bfloat16(device: str) -> bool:
    """Whether a device has instructions for bfloat16.

    Args:
        device: type of the device, `cpu` or `cuda`; any other type is assumed to have them.
    """
    import torch

    if os.environ.get(SWITCH, "0") not in ("", "0"):
        return False
    if device == "cpu":
        found = torch.cpu.get_capabilities()
        return any(found.get(name) for name in _CPU_INSTRUCTIONS)
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return True


def missing_bfloat16(device: str) -> str:
    """The sentence that reports the number format used instead of bfloat16."""
    name = "CPU" if device == "cpu" else "GPU"
    dtype = str(replacement(device)).removeprefix("torch.")
    return f"this {name} has no bfloat16 instructions: weights and computation are {dtype}"


@lru_cache
def report_missing_bfloat16(device: str) -> None:
    """Prints that sentence on stderr, once per process."""
    print(missing_bfloat16(device), file=sys.stderr, flush=True)


def replacement(device: str) -> "torch.dtype":
    """The number format for a device without bfloat16: float32 on a CPU, float16 on a GPU (V100, T4)."""
    import torch

    return torch.float32 if device == "cpu" else torch.float16


def local_dtype(device: str, setting: str) -> "torch.dtype | str":
    """The number format of a model on a device.

    Args:
        device: type of the device, `cpu` or `cuda`.
        setting: `float32`, `bfloat16` or `float16`; `auto`: on a GPU the format of the model's files, on a CPU
            bfloat16; another one, which a line reports, where the device has no instructions for bfloat16.
    """
    import torch

    if setting != "auto":
        dtype: torch.dtype = getattr(torch, setting)
        return dtype
    if not has_bfloat16(device):
        report_missing_bfloat16(device)
        return replacement(device)
    return torch.bfloat16 if device == "cpu" else "auto"
