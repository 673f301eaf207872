"""Keys and values of a batch on a CPU: read row by row, kept in one block, and shared by heads without copies.

A new token costs a CPU mostly memory traffic: transformers copies all keys and values, once to append to them and once
to repeat them for the heads that share them. Here neither happens.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

_NAME = "grouped_sdpa"
# Tokens of prompts that are remembered for later batches. LongMab-PO shows a question's chunks again and again.
_REMEMBERED_TOKENS = 16_384

Block = tuple[torch.Tensor, torch.Tensor]


class RoomyLayer(DynamicLayer):
    """A layer that writes new keys and values into room that is there already.

    Args:
        keys: (B, key-value heads, most tokens, width), of which the first `length` tokens are filled.
        values: as keys.
        length: tokens.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._room = keys, values
        self._show(length)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `DynamicLayer.update`."""
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """See `DynamicLayer.batch_select_indices`."""
        keys, values = self._room
        self._room = keys[indices], values[indices]
        self._show(self.keys.shape[2])

    def _show(self, length: int) -> None:
        keys, values = self._room
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]


class PromptReader:
    """Reads prompts into a batch's keys and values, one after the other: rows of hundreds of tokens keep a CPU busy.

    A row is read alone, so that its keys and values do not depend on the rows next to it.

    Args:
        model: every layer of which attends to all that came before.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        config = model.config.get_text_config()
        self._layers = config.num_hidden_layers
        self._heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._remembered: OrderedDict[bytes, list[Block]] = OrderedDict()

    def read(self, prompts: Sequence[np.ndarray], shared: int, room: int) -> Cache:
        """Keys and values of all tokens but the last of each prompt, aligned at their ends.

        Args:
            prompts: tokens of each row, int32.
            shared: tokens that all begin with.
            room: new tokens that will come.
        """
        width = max(len(ids) for ids in prompts) - 1
        shape = (len(prompts), self._heads, width + room, self._width)
        blocks = [tuple(torch.zeros(shape, dtype=self._model.dtype) for _ in range(2)) for _ in range(self._layers)]
        beginning = self._read(prompts[0][:shared], []) if shared else []
        for row, ids in enumerate(prompts):
            found = self._recall(ids[:-1], beginning)
            start = width - len(ids) + 1
            for block, states in zip(blocks, found, strict=True):
                for part, new in zip(block, states, strict=True):
                    part[row, :, start:width] = new[0]
        return Cache(layers=[RoomyLayer(*block, width) for block in blocks])

    def _recall(self, ids: np.ndarray, beginning: list[Block]) -> list[Block]:
        name = ids.tobytes()
        found = self._remembered.pop(name, None) or self._read(ids, beginning)
        self._remembered[name] = found
        while len(self._remembered) > 1 and self._tokens() > _REMEMBERED_TOKENS:
            self._remembered.popitem(last=False)
        return found

    def _tokens(self) -> int:
        return sum(blocks[0][0].shape[2] for blocks in self._remembered.values())

    def _read(self, ids: np.ndarray, beginning: list[Block]) -> list[Block]:
        """Keys and values of a row, each (1, heads, tokens, width); those of its beginning may be known."""
        known = beginning[0][0].shape[2] if beginning else 0
        shape = (1, self._heads, len(ids), self._width)
        layers = []
        for number in range(self._layers):
            room = [torch.empty(shape, dtype=self._model.dtype) for _ in range(2)]
            if known:
                for part, states in zip(room, beginning[number], strict=True):
                    part[:, :, :known] = states
            layers.append(RoomyLayer(*room, known))
        if len(ids) > known:
            tokens = torch.from_numpy(ids[known:].astype(np.int64))[None]
            self._model(input_ids=tokens, past_key_values=Cache(layers=layers), use_cache=True, logits_to_keep=1)
        return [(layer.keys, layer.values) for layer in layers]


def share_heads(model: PreTrainedModel) -> None:
    """Lets heads that share keys and values read them where they lie when a single new token is computed."""
    if model.config._attn_implementation != "sdpa":
        return
    stock = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        rows, heads, length, width = query.shape
        if length > 1 or heads == key.shape[1]:
            return stock(module, query, key, value, attention_mask, scaling=scaling, **others)
        # The heads of a group stand where the queries of one head would.
        grouped = query.reshape(rows, key.shape[1], -1, width)
        found = F.scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
        return found.reshape(rows, 1, heads, width), None

    AttentionInterface.register(_NAME, attention)
    AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.set_attn_implementation(_NAME)
