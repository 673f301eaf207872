"""Feed-forward blocks computed in tiles along a long row, to limit the memory of their intermediate values.

A feed-forward block computes each token alone, so tiles are exact. Each tile is recomputed in the backward pass, which
keeps the intermediate values of one tile only and costs one more forward pass of the block.
"""

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

SHARE = 0.2
"""Share of the GPU's memory that the intermediate values of one feed-forward block may take before it is tiled."""


def tile_feed_forward(model: PreTrainedModel, budget: float | None = None) -> None:
    """Lets the blocks named `mlp` compute in tiles on rows for which their intermediate values exceed the budget.

    A second call replaces the first one's tiles.

    Args:
        model: of any architecture; it stays as it is if its config has no `intermediate_size`.
        budget: bytes; None: a fifth of the GPU's memory, and no tiles on other devices.
    """
    if budget is None:
        if model.device.type != "cuda":
            return
        budget = SHARE * torch.cuda.get_device_properties(model.device).total_memory
    width = getattr(model.config.get_text_config(), "intermediate_size", None)
    if not width:
        return
    # Seven arrays of this width exist at once: gate, up, their product, and gradients.
    rows = max(1, int(budget / (7 * width * model.dtype.itemsize)))
    for name, module in model.named_modules():
        # A block of experts routes tokens and returns more than their result.
        if name.rsplit(".", 1)[-1] == "mlp" and not hasattr(module, "experts"):
            module.forward = _tiled(getattr(module.forward, "untiled", module.forward), rows)


def _tiled(forward: Any, rows: int) -> Any:
    """A block's `forward` in tiles of at most `rows` tokens; its attribute `untiled` is the original."""

    def tiled(hidden: torch.Tensor) -> torch.Tensor:
        if hidden.shape[1] <= rows:
            return forward(hidden)
        tiles = hidden.split(rows, dim=1)
        if not torch.is_grad_enabled():
            return torch.cat([forward(tile) for tile in tiles], dim=1)
        return torch.cat([checkpoint(forward, tile, use_reentrant=False) for tile in tiles], dim=1)

    tiled.untiled = forward  # type: ignore[attr-defined]
    return tiled
