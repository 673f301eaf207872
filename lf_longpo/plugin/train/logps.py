"""Log-probabilities of tokens from logits, in float32, without a float32 copy of all logits."""

from typing import Any

import torch

TILE = 1 << 26
"""Logits that are converted to float32 at a time: 256 MiB."""


class _TokenLogps(torch.autograd.Function):
    """log_softmax(logits)[targets], tile by tile along the tokens."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logps = torch.empty(targets.shape, dtype=torch.float32, device=logits.device)
        sums = torch.empty_like(logps)
        for rows in _tiles(logits):
            tile = logits[rows].float()
            sums[rows] = tile.logsumexp(-1)
            logps[rows] = tile.gather(1, targets[rows, None]).squeeze(1) - sums[rows]
        ctx.save_for_backward(logits, targets, sums)
        return logps

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, targets, sums = ctx.saved_tensors
        result = torch.empty_like(logits)
        for rows in _tiles(logits):
            tile = (logits[rows].float() - sums[rows, None]).exp_().neg_()
            tile.scatter_add_(1, targets[rows, None], torch.ones_like(targets[rows, None], dtype=tile.dtype))
            result[rows] = tile.mul_(gradient[rows, None])
        return result, None


def token_logps(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The log-probability of each target.

    Args:
        logits: (K, V), of any float type.
        targets: (K,).

    Returns:
        (K,), float32 (float64 for float64 logits).
    """
    if logits.dtype == torch.float64:
        return logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    return _TokenLogps.apply(logits, targets)


def token_means(logits: torch.Tensor) -> torch.Tensor:
    """The mean logit of each token, (K,), without gradients, of logits (K, V)."""
    logits = logits.detach()
    return torch.cat([logits[rows].float().mean(-1) for rows in _tiles(logits)] or [logits.new_empty(0)])


def _tiles(logits: torch.Tensor) -> list[slice]:
    size = max(1, TILE // logits.shape[1])
    return [slice(start, start + size) for start in range(0, logits.shape[0], size)]
