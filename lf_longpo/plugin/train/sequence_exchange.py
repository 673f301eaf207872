"""What the processes that share a packed row send each other: slices of attention's tensors, and log-probabilities.

Every exchange has the exact gradient: the transposed exchange. The processes of a group must call the same exchanges in
the same order.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

Tensors = Callable[[torch.Tensor], torch.Tensor]


class SequenceGroup:
    """The processes that compute one packed row together: 0 to P - 1, P to 2P - 1, and so on.

    Every process of the run must create its group at the same time.

    Args:
        size: P processes; it divides their number.

    Attributes:
        size: number of processes of the group.
        index: number of this process in its group.
        sent: bytes that this process has sent to the others of its group.
    """

    def __init__(self, size: int) -> None:
        self._group, _ = dist.new_subgroups(size)
        self.size = size
        self.index = dist.get_rank(self._group)
        self.sent = 0

    def to_rows(self, states: torch.Tensor) -> torch.Tensor:
        """Exchanges heads for rows: (1, heads, s, width) of s rows here to (1, heads / P, P s, width) of all rows."""
        return _Exchange.apply(states, self._to_rows, self._to_heads)

    def to_heads(self, states: torch.Tensor) -> torch.Tensor:
        """Exchanges rows for heads, the inverse of `to_rows`."""
        return _Exchange.apply(states, self._to_heads, self._to_rows)

    def all_rows(self, states: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, (1, heads, P s, width), from (1, heads, s, width) of s rows in each."""
        return _Exchange.apply(states, self._gather_rows, self._sum_rows)

    def merged(self, values: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
        """Values of K tokens, each known to one process, for all processes of the group.

        Trainers average gradients over all processes, and every process of a group computes the same loss from its own
        part. The gradients are therefore multiplied by P, so that the average is the gradient of the loss.

        Args:
            values: (N, k) of the k tokens that this process has.
            here: (K,) which tokens these are.

        Returns:
            (N, K).
        """

        def merge(part: torch.Tensor) -> torch.Tensor:
            whole = part.new_zeros(len(part), len(here))
            whole[:, here] = part
            self._count(2 * whole.numel() * whole.element_size())  # a ring: sums go round, then results
            dist.all_reduce(whole, group=self._group)
            return whole

        return _Exchange.apply(values, merge, lambda gradient: gradient[:, here] * self.size)

    def _to_rows(self, states: torch.Tensor) -> torch.Tensor:
        _, heads, rows, width = states.shape
        received = self._swap(states.reshape(self.size, heads // self.size, rows, width))
        return received.transpose(0, 1).reshape(1, heads // self.size, self.size * rows, width)

    def _to_heads(self, states: torch.Tensor) -> torch.Tensor:
        _, heads, rows, width = states.shape
        parts = states.reshape(heads, self.size, rows // self.size, width).transpose(0, 1)
        return self._swap(parts).reshape(1, self.size * heads, rows // self.size, width)

    def _gather_rows(self, states: torch.Tensor) -> torch.Tensor:
        _, heads, rows, width = states.shape
        gathered = states.new_empty(self.size, heads, rows, width)
        self._count(gathered.numel() * gathered.element_size())
        dist.all_gather_into_tensor(gathered.flatten(0, 1), states[0].contiguous(), group=self._group)
        return gathered.transpose(0, 1).reshape(1, heads, self.size * rows, width)

    def _sum_rows(self, gradient: torch.Tensor) -> torch.Tensor:
        _, heads, rows, width = gradient.shape
        parts = gradient.reshape(heads, self.size, rows // self.size, width).transpose(0, 1)
        return self._swap(parts).sum(0, keepdim=True)

    def _swap(self, parts: torch.Tensor) -> torch.Tensor:
        """Sends part i, of (P, ...), to process i; returns what the processes sent here, in their order."""
        parts = parts.contiguous()
        received = torch.empty_like(parts)
        self._count(parts.numel() * parts.element_size())
        dist.all_to_all_single(received, parts, group=self._group)
        return received

    def _count(self, size: int) -> None:
        """Counts an exchange of `size` bytes, of which the share of this process stays here."""
        self.sent += size * (self.size - 1) // self.size


class _Exchange(torch.autograd.Function):
    """A linear exchange and its transpose, which computes the gradient."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, exchange: Tensors, transpose: Tensors) -> torch.Tensor:
        ctx.transpose = transpose
        return exchange(states)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.transpose(gradient), None, None
