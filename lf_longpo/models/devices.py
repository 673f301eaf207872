"""Where a model in this process computes, and in which number format."""

import sys

from lf_longpo.errors import UserError, first_line

_GB = 1e9
# Free memory that an embedder on a GPU needs beyond its weights: CUDA's own context (0.5 GB) and the activations of a
# batch of 32 texts.
EMBEDDING_BYTES = 2_000_000_000


def pick_device(device: str, setting: str) -> str:
    """The device that a setting names, in PyTorch's form; `auto` is the first GPU, or the CPU where there is none.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        setting: the setting's name, for the error.

    Raises:
        UserError: this machine has no such device.
    """
    import torch

    kind, _, number = device.partition(":")
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(
            f"{setting}: PyTorch finds {torch.cuda.device_count()} CUDA devices here and no {device!r}; set {setting} "
            "to auto, cpu or one that exists"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"{setting}: PyTorch finds no 'mps' device here; set {setting} to auto or cpu")
    return device


def roomiest_device(model: str, weights: int) -> str:
    """The GPU where it has enough free memory for an embedder, else the CPU; reports which on stderr if there is a GPU.

    Args:
        model: the embedder's name, for the report.
        weights: bytes of its weights.
    """
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    need = weights + EMBEDDING_BYTES
    try:
        free, _ = torch.cuda.mem_get_info()
        found = f"{free / _GB:.1f} GB are free there"
    except RuntimeError as error:  # not even room for CUDA's own context
        free, found = 0, first_line(error)
    device = "cuda" if free >= need else "cpu"
    reason = f"{found}, {need / _GB:.1f} GB are needed"
    other = "" if device == "cuda" else " and not on the GPU"
    print(f"embedder {model}: runs on {device}{other} ({reason})", file=sys.stderr, flush=True)
    return device
