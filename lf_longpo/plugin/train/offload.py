"""Gradient checkpointing with the checkpoints in the CPU's memory, for LLaMA-Factory's `use_unsloth_gc`.

LLaMA-Factory's own function lets the GPU wait for every copy. Here a stream of its own copies a layer's input to pinned
memory while the layer computes, and copies the input of the layer before back while a layer is in its backward pass.
PyTorch's checkpointing does everything else, so dropout draws the same numbers in both passes.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

# PyTorch rounds the size of pinned memory up to a power of two.
_PIECE = 1 << 26


class OffloadedCheckpoint:
    """A checkpointing function; inputs that are not on a CUDA device stay where they are."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._last: Callable[[], _Stored | None] = lambda: None

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's result; its intermediate values are computed again in the backward pass."""
        if not torch.is_grad_enabled():
            return function(*arguments)
        with saved_tensors_hooks(self._pack, _unpack):
            return checkpoint(function, *arguments, use_reentrant=False)

    def _pack(self, tensor: torch.Tensor) -> "torch.Tensor | _Stored":
        if not tensor.is_cuda:
            return tensor
        self._stream = self._stream or torch.cuda.Stream(tensor.device)
        stored = _Stored(tensor, self._stream, self._last)
        self._last = weakref.ref(stored)
        return stored


def _unpack(saved: "torch.Tensor | _Stored") -> torch.Tensor:
    return saved if isinstance(saved, torch.Tensor) else saved.fetch()


class _Stored:
    """A tensor in pinned memory.

    Args:
        tensor: on a CUDA device.
        stream: copies in both directions.
        previous: gives the tensor that was stored before, which the backward pass needs next; None if it is freed.
    """

    def __init__(
        self, tensor: torch.Tensor, stream: torch.cuda.Stream, previous: "Callable[[], _Stored | None]"
    ) -> None:
        self._shape, self._device, self._stream, self._previous = tensor.shape, tensor.device, stream, previous
        self._fetched: torch.Tensor | None = None
        parts = _pieces(tensor.detach().reshape(-1))
        self._pieces = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in parts]
        stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(stream):
            for piece, part in zip(self._pieces, parts, strict=True):
                piece.copy_(part, non_blocking=True)
                part.record_stream(stream)  # its memory is reused only after the copy

    def fetch(self) -> torch.Tensor:
        """The tensor on its device; starts the copy of the one before."""
        self._start()
        fetched, self._fetched = self._fetched, None
        assert fetched is not None
        torch.cuda.current_stream(self._device).wait_event(self._copied)
        previous = self._previous()
        if previous is not None:
            previous._start()
        return fetched

    def _start(self) -> None:
        if self._fetched is not None:
            return
        count = sum(len(piece) for piece in self._pieces)
        flat = torch.empty(count, dtype=self._pieces[0].dtype, device=self._device)
        # The allocator may give memory that the current stream still uses.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for part, piece in zip(_pieces(flat), self._pieces, strict=True):
                part.copy_(piece, non_blocking=True)
        flat.record_stream(self._stream)
        self._copied = self._stream.record_event()
        self._fetched = flat.view(self._shape)


def _pieces(flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return flat.split(_PIECE // flat.itemsize)
