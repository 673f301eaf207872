"""Decoder layers computed in tiles along a long row, to limit the memory of their intermediate values.

Everything in a layer except attention computes each token alone: norms, projections, rotary embeddings, feed-forward
blocks and experts. So tiles are exact. Each tile is recomputed in the backward pass, which keeps the intermediate
values of one tile only and costs one more forward pass of the layer without its attention. What remains for the whole
row is the layer's input, attention's own tensors (query, key, value, output) and their gradients.

A layer's own `forward` runs on every tile, so that a tile works for every architecture whose attention is called
`self_attn`, ends in `o_proj` and takes its kernel from transformers' registry:

1. `forward` runs until it calls the attention kernel, which keeps query, key and value of the tile.
2. The kernel runs once, on the whole row.
3. `forward` runs again, where `self_attn` returns `o_proj` of the tile's share of the kernel's result.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from lf_longpo.plugin.compat import attention_kernel

if TYPE_CHECKING:
    from accelerate import Accelerator

SHARE = 0.2
"""Share of the GPU's memory that the intermediate values of one layer may take before it is tiled."""
TILE_SHARE = SHARE / 8
"""Share of the GPU's memory that the intermediate values of one tile may take."""
_PER_TOKEN = ("position_ids", "position_embeddings")
"""Arguments of a layer with a value for every token, next to its input."""


class Tiles(NamedTuple):
    """How a model's layers are tiled.

    Attributes:
        longest: tokens of the longest row that is computed whole.
        size: tokens of a tile of longer rows.
    """

    longest: float
    size: int


WHOLE = Tiles(float("inf"), 1)
"""Rows of every length are computed whole."""
_checked_size: ContextVar[int | None] = ContextVar("_checked_size", default=None)


def bytes_at_work(hidden: int, key_value: int, feed_forward: int, itemsize: int) -> int:
    """Bytes of a token in a layer that is recomputed whole, with gradients; measured by scripts/bench_row_memory.py.

    Args:
        hidden: width of the residual stream.
        key_value: width of all keys of a token.
        feed_forward: width inside the feed-forward block: gate, up, their product, and gradients.
        itemsize: bytes of a number.
    """
    return (4 * itemsize + 28) * hidden + 4 * itemsize * key_value + (4 * itemsize + 6) * feed_forward


def tiles_for(at_work: int, memory: float) -> Tiles:
    """The tiles for a device.

    Args:
        at_work: bytes of a token in a layer, from `bytes_at_work`.
        memory: bytes of the device.
    """
    return Tiles(int(SHARE * memory / at_work), max(1, int(TILE_SHARE * memory / at_work)))


def tile_layers(model: PreTrainedModel, tiles: Tiles) -> None:
    """Lets a model compute its layers and its last norm in tiles on long packed rows.

    A second call replaces the first one's tiles. Layers of another structure stay as they are.

    Args:
        model: after `attention.use_packed_attention`.
        tiles: from `tiles_of`.
    """
    for module in model.modules():
        attention = getattr(module, "self_attn", None)
        if hasattr(attention, "o_proj") and hasattr(attention, "config"):
            module.forward = _tiled_layer(module, tiles)
    norm = getattr(model.get_decoder(), "norm", None)
    if norm is not None:
        norm.forward = _tiled_norm(_untiled(norm), tiles)


@contextmanager
def in_small_tiles(size: int) -> Iterator[None]:
    """Tiles of `size` tokens for rows of any length in a block, so that a check on a short row includes them."""
    token = _checked_size.set(size)
    try:
        yield
    finally:
        _checked_size.reset(token)


def tiles_of(model: PreTrainedModel, accelerator: "Accelerator") -> Tiles:
    """The tiles for a model by the memory of the GPU that it trains on; `WHOLE` on other devices.

    Args:
        model: FSDP moves it to its device and converts its weights later, so both are taken from the accelerator.
        accelerator: of the trainer.
    """
    if accelerator.device.type != "cuda":
        return WHOLE
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_value = width * (getattr(config, "num_key_value_heads", None) or heads)
    feed_forward = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    itemsize = model.dtype.itemsize if accelerator.mixed_precision == "no" else 2
    at_work = bytes_at_work(config.hidden_size, key_value, feed_forward, itemsize)
    return tiles_for(at_work, torch.cuda.get_device_properties(accelerator.device).total_memory)


def _size_for(length: int, tiles: Tiles) -> int | None:
    """Tokens of a tile for a row; None where the row is computed whole."""
    if size := _checked_size.get():
        return size
    return tiles.size if length > tiles.longest else None


def _untiled(module: torch.nn.Module) -> Callable[..., torch.Tensor]:
    return getattr(module.forward, "untiled", module.forward)


def _tiled_norm(forward: Callable[..., torch.Tensor], tiles: Tiles) -> Callable[..., torch.Tensor]:
    """A norm's `forward` in tiles; its attribute `untiled` is the original."""

    def tiled(hidden: torch.Tensor) -> torch.Tensor:
        size = _size_for(hidden.shape[1], tiles)
        if size is None:
            return forward(hidden)
        return torch.cat([_recomputed(forward, tile) for tile in hidden.split(size, dim=1)], dim=1)

    tiled.untiled = forward  # type: ignore[attr-defined]
    return tiled


def _tiled_layer(layer: Any, tiles: Tiles) -> Callable[..., torch.Tensor]:
    """A layer's `forward` in tiles; its attribute `untiled` is the original."""
    forward = _untiled(layer)

    def tiled(hidden_states: torch.Tensor, *others: Any, **options: Any) -> torch.Tensor:
        # A cache of keys would get those of the tiles one after the other.
        packed = options.get("segments") and not others and options.get("past_key_values") is None
        size = _size_for(hidden_states.shape[1], tiles) if packed else None
        if size is None:
            return forward(hidden_states, *others, **options)
        rows = hidden_states.split(size, dim=1)
        shares = [_share(options, i * size, size) for i in range(len(rows))]
        projected = [_recomputed(_project, forward, layer, row, share) for row, share in zip(rows, shares, strict=True)]
        passed = projected[0][3]
        states = [torch.cat([parts[i] for parts in projected], dim=2) for i in range(3)]
        del projected
        kernel = ALL_ATTENTION_FUNCTIONS[attention_kernel(layer.self_attn.config)]
        whole = {name: value for name, value in options.items() if name in _PER_TOKEN and name in passed}
        result, _ = kernel(layer.self_attn, *states, options.get("attention_mask"), **passed | whole)
        del states
        parts = result.flatten(2).split(size, dim=1)
        del result
        finished = [
            _recomputed(_finish, forward, layer, row, part, share)
            for row, part, share in zip(rows, parts, shares, strict=True)
        ]
        return torch.cat(finished, dim=1)

    tiled.untiled = forward  # type: ignore[attr-defined]
    return tiled


def _recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """A function's result; its intermediate values are not kept, and are computed again in the backward pass."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False)


def _share(options: Mapping[str, Any], start: int, size: int) -> dict[str, Any]:
    """A layer's arguments for one tile; values of the tokens have the form (1, S, ...)."""

    def cut(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value[:, start : start + size]
        return value if value is None else tuple(cut(part) for part in value)

    return {name: cut(value) if name in _PER_TOKEN else value for name, value in options.items()}


class _Reached(Exception):
    """Ends a layer's `forward` where it calls the attention kernel."""


def _project(
    forward: Callable[..., torch.Tensor], layer: Any, row: torch.Tensor, options: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Query, key and value of a tile as the kernel gets them, and the kernel's further arguments."""
    reached: list[Any] = []

    def keep(_: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, __: Any, **others: Any) -> None:
        reached.extend((query, key, value, others))
        raise _Reached

    name = attention_kernel(layer.self_attn.config)
    kernel = ALL_ATTENTION_FUNCTIONS[name]
    AttentionInterface.register(name, keep)
    try:
        forward(row, **options)
    except _Reached:
        pass
    finally:
        AttentionInterface.register(name, kernel)
    query, key, value, others = reached
    return query, key, value, others


def _finish(
    forward: Callable[..., torch.Tensor], layer: Any, row: torch.Tensor, part: torch.Tensor, options: dict[str, Any]
) -> torch.Tensor:
    """The layer's result for a tile, from the kernel's result for it."""
    attention = layer.self_attn
    had, whole = "forward" in vars(attention), attention.forward
    attention.forward = lambda *_, **__: (attention.o_proj(part), None)
    try:
        return forward(row, **options)
    finally:
        if had:
            attention.forward = whole
        else:
            del attention.forward
