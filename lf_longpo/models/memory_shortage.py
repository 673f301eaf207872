"""Memory that runs out in this process: known by its errors, and given back before another try."""

_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


def is_memory_shortage(error: Exception) -> bool:
    """Whether a model's error says that memory ran out, on a GPU or a CPU (PyTorch, cuBLAS, Python)."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _WORDS)


def free_memory() -> None:
    """Gives back what PyTorch holds and does not use; outside of `except`, which would keep the tensors alive."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()
