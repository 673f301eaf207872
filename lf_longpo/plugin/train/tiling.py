"""Feed-forward blocks in tiles along a long row, where one at work in a whole layer would take too much memory.

A feed-forward block looks at each token alone, so tiles are exact. Each tile is computed again in the backward pass,
which holds the block's inside for one tile only and costs one more forward pass of the block.
"""

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

# Share of the GPU's memory that the inside of one feed-forward block may take before it is tiled.
SHARE = 0.2


def tile_feed_forward(model: PreTrainedModel, budget: float | None = None) -> None:
    """Lets the blocks called `mlp` work in tiles on rows for which their inside exceeds the budget.

    Args:
        model: of any architecture whose config tells `intermediate_size`.
        budget: bytes; None: a fifth of the GPU's memory, and no tiles on other devices.
    """
    if budget is None:
        if model.device.type != "cuda":
            return
        budget = SHARE * torch.cuda.get_device_properties(model.device).total_memory
    width = getattr(model.config.get_text_config(), "intermediate_size", None)
    if not width:
        return
    # Seven arrays of the inside's width are there at once: gate, up, their product, and gradients.
    rows = max(1, int(budget / (7 * width * model.dtype.itemsize)))
    for name, module in model.named_modules():
        # Experts route tokens and tell more than their result.
        if name.rsplit(".", 1)[-1] == "mlp" and not hasattr(module, "experts"):
            module.forward = _tiled(module.forward, rows)


def _tiled(forward: Any, rows: int) -> Any:
    def tiled(hidden: torch.Tensor) -> torch.Tensor:
        if hidden.shape[1] <= rows:
            return forward(hidden)
        tiles = hidden.split(rows, dim=1)
        if not torch.is_grad_enabled():
            return torch.cat([forward(tile) for tile in tiles], dim=1)
        return torch.cat([checkpoint(forward, tile, use_reentrant=False) for tile in tiles], dim=1)

    return tiled
