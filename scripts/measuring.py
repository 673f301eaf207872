"""Peak memory of this process, on CUDA by its allocator, elsewhere by the operating system (Linux)."""

import ctypes
import gc
import os
from pathlib import Path

GIB = 1 << 30
# Environment of a measured process: freed blocks are returned to the system, so that resident memory is memory in use.
MEASURABLE = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}


def reset_peak() -> int:
    """Starts a new peak.

    Returns:
        The memory in use, in bytes.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """The most memory in use since `reset_peak`, in bytes."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
