"""The KV cache of a batch on a CPU: filled row by row, kept in one block, shared by heads without copies.

On a CPU, most of the time for a new token is memory traffic. transformers copies all keys and values twice: to append
to them, and to repeat them for the heads that share them. This cache avoids both copies.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

_NAME = "grouped_sdpa"
# Tokens of prompts that are kept for later batches: LongMab-PO repeats the chunks of a question in many prompts.
_REMEMBERED_TOKENS = 16_384

Block = tuple[torch.Tensor, torch.Tensor]


class RoomyLayer(DynamicLayer):
    """A layer that writes new keys and values into memory that was allocated before.

    Args:
        keys: shape (B, key-value heads, most tokens, head width); the first `length` tokens are filled.
        values: same shape as keys.
        length: number of tokens.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._room = keys, values
        self._show(length)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `DynamicLayer.update`."""
        start = self._length
        end = start + key_states.shape[2]
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        return self._show(end)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """See `DynamicLayer.batch_select_indices`."""
        keys, values = self._room
        self._room = keys[indices], values[indices]
        self._show(self._length)

    def filled(self) -> Block:
        """Keys and values of all tokens so far."""
        return self._show(self._length)

    def _show(self, length: int) -> Block:
        keys, values = self._room
        self._length = length
        shown = keys[:, :, :length], values[:, :, :length]
        self.keys, self.values = shown
        return shown


class PromptReader:
    """Reads prompts into the KV cache of a batch, one after the other: a row of hundreds of tokens keeps a CPU busy.

    A row is read alone, so that its keys and values do not depend on the other rows.

    Args:
        model: a model with full attention in every layer.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        config = model.config.get_text_config()
        self._layers = config.num_hidden_layers
        self._heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._remembered: OrderedDict[bytes, list[Block]] = OrderedDict()

    def read(self, prompts: Sequence[np.ndarray], shared: int, room: int) -> Cache:
        """The cache of all tokens but the last of each prompt, aligned at the ends of the prompts.

        Args:
            prompts: tokens of each row, int32, shape (tokens,).
            shared: length of the common beginning of all prompts.
            room: the most new tokens.
        """
        width = max(len(ids) for ids in prompts) - 1
        shape = (len(prompts), self._heads, width + room, self._width)
        blocks = [self._block(torch.zeros, shape) for _ in range(self._layers)]
        beginning = self._read(prompts[0][:shared], []) if shared else []
        for row, ids in enumerate(prompts):
            start = width - len(ids) + 1
            for block, states in zip(blocks, self._recall(ids[:-1], beginning), strict=True):
                for part, new in zip(block, states, strict=True):
                    part[row, :, start:width] = new[0]
        return Cache(layers=[RoomyLayer(keys, values, width) for keys, values in blocks])

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
        """Keys and values of a row by layer, each (1, heads, tokens, width); its beginning may be known."""
        known = beginning[0][0].shape[2] if beginning else 0
        shape = (1, self._heads, len(ids), self._width)
        layers = []
        for number in range(self._layers):
            keys, values = self._block(torch.empty, shape)
            if known:
                keys[:, :, :known], values[:, :, :known] = beginning[number]
            layers.append(RoomyLayer(keys, values, known))
        if len(ids) > known:
            tokens = torch.from_numpy(ids[known:].astype(np.int64))[None]
            self._model(input_ids=tokens, past_key_values=Cache(layers=list(layers)), use_cache=True, logits_to_keep=1)
        return [layer.filled() for layer in layers]

    def _block(self, make: Callable[..., torch.Tensor], shape: tuple[int, ...]) -> Block:
        return make(shape, dtype=self._model.dtype), make(shape, dtype=self._model.dtype)


def share_heads(model: PreTrainedModel) -> None:
    """Lets heads that share keys and values read them without a copy when a single new token is computed."""
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
        **rest: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        rows, heads, length, width = query.shape
        if length > 1 or heads == key.shape[1]:
            output: tuple[torch.Tensor, torch.Tensor | None]
            output = stock(module, query, key, value, attention_mask, scaling=scaling, **rest)
            return output
        # The heads of a group take the positions of queries of one head.
        grouped = query.reshape(rows, key.shape[1], -1, width)
        attended = F.scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
        return attended.reshape(rows, 1, heads, width), None

    AttentionInterface.register(_NAME, attention)
    AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.set_attn_implementation(_NAME)
