"""The forward pass that both trainers share: logits of a packed batch, of the positions in the loss and no others."""

from collections.abc import Mapping
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
