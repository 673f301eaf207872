"""Out-of-memory errors of models in this process: how to recognise them, and how to free memory for a retry."""

_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


def is_memory_shortage(error: Exception) -> bool:
    """Whether an error means that a GPU or a CPU is out of memory (PyTorch, cuBLAS, Python)."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _WORDS)


def free_memory() -> None:
    """Frees memory that PyTorch holds but does not use. Call it outside of `except`, which keeps the tensors alive."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()
