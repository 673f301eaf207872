"""Attention over packed rows by several causal attentions without a mask, registered with transformers.

Prompt and first response are one causal attention. Every further response attends to the prompt and itself: queries of
the response against keys of prompt and response, causal from the lower right. Fast kernels (FlashAttention, through
PyTorch or flash-attn) compute both forms without a mask.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from lf_longpo.plugin.compat import attention_kernel

Causal = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float | None], torch.Tensor]
"""Attention of queries against keys, where the last query sees all keys."""
KERNELS = ("sdpa", "flash_attention_2")
"""transformers' attention implementations that have a packed form here."""
_PACKED = "packed_"


class Piece(NamedTuple):
    """Consecutive rows that see the prompt before them and each other, causally.

    Attributes:
        prompt: rows of the prompt that are not next to the piece; empty for prompt and first response.
        first: the first row that a row sees next to these.
        start: first row of the piece.
        stop: row after the last one of the piece.
    """

    prompt: slice
    first: int
    start: int
    stop: int


def pieces_of(segments: Sequence[Sequence[int]]) -> Iterator[Piece]:
    """The causal parts of a packed row, in order: prompt and first response, then every further response.

    Args:
        segments: for each example the numbers of tokens of its prompt and of each response, in order.
    """
    start = 0
    for prompt, first, *others in segments:
        end = start + prompt + first
        yield Piece(slice(start, start), start, start, end)
        for length in others:
            yield Piece(slice(start, start + prompt), end, end, end + length)
            end += length
        start = end


class Part(Protocol):
    """The rows that one of several processes computes, see `sequence_parallel.RowPart`."""

    def attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, causal: Causal
    ) -> torch.Tensor:
        """Attention of these rows, (1, heads, s, width); keys and values are theirs too."""
        ...


def stock_kernel(model: PreTrainedModel) -> str:
    """The attention implementation of a model without our packed form, by transformers' name."""
    return attention_kernel(model.config).removeprefix(_PACKED)


def use_packed_attention(model: PreTrainedModel) -> None:
    """Lets a model take packed rows; rows without segments use transformers' implementation as before.

    A second call changes nothing.

    Args:
        model: its attention implementation is one of `KERNELS`.
    """
    kernel = stock_kernel(model)
    name = _PACKED + kernel
    stock = ALL_ATTENTION_FUNCTIONS[kernel]

    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        segments: Sequence[Sequence[int]] | None = None,
        scaling: float | None = None,
        part: Part | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if segments is None:
            return stock(module, query, key, value, attention_mask, scaling=scaling, **others)
        causal = _flash if kernel == "flash_attention_2" else _sdpa
        query, key, value = _autocast(query, key, value)
        if part is None:
            found = packed_attention(query, key, value, segments, scaling, causal)
        else:
            found = part.attention(query, key, value, scaling, causal)
        return found.transpose(1, 2).contiguous(), None

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[kernel])
    model.set_attn_implementation(name)


def no_mask(device: torch.device) -> torch.Tensor:
    """A placeholder, (1, 1, 1, 1): transformers takes four dimensions for a finished mask and creates none."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Sequence[Sequence[int]],
    scaling: float | None,
    causal: Causal | None = None,
) -> torch.Tensor:
    """Attention within each segment: responses see their prompt and themselves, never each other.

    Args:
        query: (1, heads, S, width).
        key: (1, key-value heads, S, width); several query heads may share one.
        value: as key.
        segments: for each example the numbers of tokens of its prompt and of each response, in order; S in total.
        scaling: factor of the products; None: 1 / sqrt(width).
        causal: computes each part; None: PyTorch's.

    Returns:
        (1, heads, S, width).
    """
    causal = causal or _sdpa
    parts = [
        piece_attention(query[:, :, piece.start : piece.stop], key, value, piece, scaling, causal)
        for piece in pieces_of(segments)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def piece_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, piece: Piece, scaling: float | None, causal: Causal
) -> torch.Tensor:
    """Attention of the rows of a piece, (1, heads, rows, width), against keys and values of all rows."""
    seen = slice(piece.first, piece.stop)
    if piece.prompt.start == piece.prompt.stop:
        return causal(query, key[:, :, seen], value[:, :, seen], scaling)
    keys, values = (torch.cat((states[:, :, piece.prompt], states[:, :, seen]), dim=2) for states in (key, value))
    return causal(query, keys, values, scaling)


def _autocast(*states: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Query, key and value in autocast's type where it is on."""
    if not torch.is_autocast_enabled(states[0].device.type):
        return states
    # PyTorch does not convert where a lower-right causal bias is given; rotary embeddings are float32.
    dtype = torch.get_autocast_dtype(states[0].device.type)
    return tuple(part.to(dtype) for part in states)


def _sdpa(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None) -> torch.Tensor:
    if not query.shape[2]:
        return query
    grouped = query.shape[1] != key.shape[1]
    if grouped and query.is_cuda and query.dtype == torch.float32:
        # The only fast kernel for float32 on CUDA does not share keys; the others keep all scores in memory.
        repeats = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), False
    square = query.shape[2] == key.shape[2]
    mask = None if square else causal_lower_right(query.shape[2], key.shape[2])
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=square, scale=scaling, enable_gqa=grouped
    )


def _flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None) -> torch.Tensor:
    """flash-attn's function: causal from the lower right, keys shared."""
    from flash_attn import flash_attn_func

    states = (part.transpose(1, 2) for part in (query, key, value))
    return flash_attn_func(*states, softmax_scale=scaling, causal=True).transpose(1, 2)
