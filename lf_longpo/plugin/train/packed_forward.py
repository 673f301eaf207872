"""The forward pass that both trainers share: log-probabilities of the tokens in the loss of a packed batch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from lf_longpo.plugin.train.attention import no_mask
from lf_longpo.plugin.train.logps import token_logps, token_means


class TokenValues(NamedTuple):
    """Values of the K tokens in the loss, in the order of the batch's `targets`.

    Attributes:
        logps: (K,) log-probability of each token, with gradients.
        means: (K,) mean logit over the vocabulary at the position that predicts the token, without gradients.
    """

    logps: torch.Tensor
    means: torch.Tensor


def token_values(model: torch.nn.Module, batch: Mapping[str, Any]) -> TokenValues:
    """One forward pass over a batch of `packing.pack`, by a model after `attention.use_packed_attention`."""
    logits = model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=no_mask(batch["input_ids"].device),
        segments=batch["segments"],
        logits_to_keep=batch["keep"],
        use_cache=False,
        return_dict=True,
    ).logits[0]
    return TokenValues(token_logps(logits, batch["targets"]), token_means(logits))


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
