"""The forward pass that both trainers share: logits of a packed batch, only of the positions in the loss."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from lf_longpo.plugin.train.attention import no_mask


def kept_logits(model: torch.nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
    """Logits (K, V) of a batch of `packing.pack`, by a model after `attention.use_packed_attention`.

    K is the number of positions in the loss, V the size of the vocabulary.
    """
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
def without_gradients(model: torch.nn.Module) -> Iterator[None]:
    """Switches gradients and dropout off for a block.

    The model stays in training mode: quantised layers change the form of their weights in evaluation mode.
    """
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.training]
    for module in dropouts:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in dropouts:
            module.train()
