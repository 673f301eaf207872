"""The forward pass that both trainers share: logits of a packed batch, of the positions in the loss and no others."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from lf_longpo.plugin.train.attention import no_mask


def kept_logits(model: torch.nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
    """Logits (K, V) of a batch of `packing.pack`, by a model under `attention.use_packed_attention`."""
    return model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=no_mask(batch["input_ids"].device),
        segments=batch["segments"],
        logits_to_keep=batch["keep"],
        use_cache=False,
        return_dict=True,
    ).logits[0]


@contextmanager
def measuring(model: torch.nn.Module) -> Iterator[None]:
    """Without gradients and dropout, but not in evaluation mode: quantised layers change their weights' form in it."""
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.training]
    for module in dropouts:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in dropouts:
            module.train()
