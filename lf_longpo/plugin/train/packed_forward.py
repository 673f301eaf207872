"""The forward pass that both trainers share: log-probabilities of the tokens in the loss of a packed batch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from lf_longpo.plugin.train.attention import no_mask
from lf_longpo.plugin.train.logps import token_logps, token_means
from lf_longpo.plugin.train.sequence_parallel import RowSplitter


class TokenValues(NamedTuple):
    """Values of the K tokens in the loss, in the order of the batch's `targets`.

    Attributes:
        logps: (K,) log-probability of each token, with gradients.
        means: (K,) mean logit over the vocabulary at the position that predicts the token, without gradients.
    """

    logps: torch.Tensor
    means: torch.Tensor


def token_values(model: torch.nn.Module, batch: Mapping[str, Any], splitter: RowSplitter | None = None) -> TokenValues:
    """One forward pass over a batch of `packing.pack`, by a model after `attention.use_packed_attention`.

    Args:
        model: the model, or what wraps it for several processes.
        batch: the packed batch; the same one in every process of a group.
        splitter: splits the row over the processes of a group; None: this process computes the whole row.

    Returns:
        The values of all K tokens, in every process of a group.
    """
    if splitter is None:
        inputs = {name: batch[name] for name in ("input_ids", "position_ids")} | {"logits_to_keep": batch["keep"]}
        logits = _logits(model, inputs, segments=batch["segments"])
        return TokenValues(token_logps(logits, batch["targets"]), token_means(logits))
    part = splitter.split(batch)
    logits = _logits(model, part.inputs, segments=batch["segments"], part=part)
    logps = token_logps(logits, part.targets)
    logps, means = part.merged(torch.stack((logps, token_means(logits).to(logps.dtype))))
    return TokenValues(logps, means.detach().float())


def _logits(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], **others: Any) -> torch.Tensor:
    """The logits of the rows `logits_to_keep`, (k, V)."""
    mask = no_mask(inputs["input_ids"].device)
    return model(**inputs, **others, attention_mask=mask, use_cache=False, return_dict=True).logits[0]


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
