"""Sequence parallelism: P processes compute one packed row together, each a part of its tokens.

Embeddings, norms, projections, feed-forward blocks and logits compute each token alone, so a process computes them for
its own tokens. Only attention needs the others' tokens. There are two ways:

- P divides the query heads: process p has the p-th slice of the row. Before attention the processes exchange heads for
  rows (DeepSpeed-Ulysses, arXiv 2309.14509), so that each computes all rows of its heads, and back after it. A
  key-value head that several processes need is sent to each of them.
- Otherwise: keys and values are gathered, and each process computes the queries of its own tokens. A later token sees
  more keys, so each causal part of the row is cut into 2P pieces, and process p has pieces p and 2P - 1 - p: the work
  is the same in every process.
"""

from collections.abc import Mapping, Sequence
from math import gcd
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from lf_longpo.plugin.train.attention import Causal, Piece, packed_attention, piece_attention, pieces_of
from lf_longpo.plugin.train.sequence_exchange import SequenceGroup


class RowSplitter:
    """Splits packed rows over the processes of a group.

    Args:
        group: the processes.
        heads: number of query heads of the model.
    """

    def __init__(self, group: SequenceGroup, heads: int) -> None:
        self.group = group
        self._by_heads = heads % group.size == 0

    def split(self, batch: Mapping[str, Any]) -> "RowPart":
        """The part of this process of a batch of `packing.pack`."""
        kind = _PartByHeads if self._by_heads else _PartByQueries
        return kind(batch, self.group)


class RowPart:
    """The tokens of a packed row that this process computes, s in number in every process of the group.

    A process with fewer tokens computes the row's first token again in their place. Nothing depends on the result.

    Attributes:
        inputs: input_ids and position_ids, (1, s), and logits_to_keep, (k,): rows of the part that predict tokens.
        targets: (k,) the tokens that they predict.
    """

    def __init__(self, batch: Mapping[str, Any], group: SequenceGroup, rows: torch.Tensor) -> None:
        self.group = group
        length, device = batch["input_ids"].shape[1], batch["input_ids"].device
        known = rows >= 0
        self._padding = int((~known).sum())
        places = torch.full((length,), -1)
        places[rows[known]] = torch.arange(len(rows))[known]
        rows, places = rows.clamp(min=0).to(device), places.to(device)
        kept = places[batch["keep"]]
        self._here = kept >= 0
        self.inputs = {name: batch[name][:, rows] for name in ("input_ids", "position_ids")}
        self.inputs["logits_to_keep"] = kept[self._here]
        self.targets = batch["targets"][self._here]

    def merged(self, values: torch.Tensor) -> torch.Tensor:
        """Values (N, k) of the tokens that this process predicts, together with the others': (N, K)."""
        return self.group.merged(values, self._here)

    def attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, causal: Causal
    ) -> torch.Tensor:
        """Attention of the part's tokens: as `packed_attention`, with (1, heads, s, width) for query and result."""
        raise NotImplementedError


class _PartByHeads(RowPart):
    """A slice of the row; attention computes all rows of some heads."""

    def __init__(self, batch: Mapping[str, Any], group: SequenceGroup) -> None:
        self._segments = batch["segments"]
        self._length = length = batch["input_ids"].shape[1]
        size = -(-length // group.size)
        self._rows = size * group.size
        rows = torch.arange(size * group.index, size * (group.index + 1))
        super().__init__(batch, group, torch.where(rows < length, rows, -1))

    def attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, causal: Causal
    ) -> torch.Tensor:
        here, shared = query.shape[1] // self.group.size, query.shape[1] // key.shape[1]
        # The most query heads of a process that share one key-value head.
        together = gcd(here, shared)
        key, value = (states.repeat_interleave(shared // together, dim=1) for states in (key, value))
        query, key, value = (self.group.to_rows(states)[:, :, : self._length] for states in (query, key, value))
        found = packed_attention(query, key, value, self._segments, scaling, causal)
        padding = self._rows - self._length
        return self.group.to_heads(F.pad(found, (0, 0, 0, padding)) if padding else found)


class _PartByQueries(RowPart):
    """Two pieces of each causal part of the row; attention computes their queries against gathered keys."""

    def __init__(self, batch: Mapping[str, Any], group: SequenceGroup) -> None:
        shares = [_balanced(batch["segments"], group.size, index) for index in range(group.size)]
        rows = [torch.cat([torch.arange(piece.start, piece.stop) for piece in share]) for share in shares]
        size = max(len(part) for part in rows)
        self._pieces = shares[group.index]
        self._places = torch.empty(batch["input_ids"].shape[1], dtype=torch.long)
        for index, part in enumerate(rows):
            self._places[part] = torch.arange(len(part)) + index * size
        self._places = self._places.to(batch["input_ids"].device)
        super().__init__(batch, group, F.pad(rows[group.index], (0, size - len(rows[group.index])), value=-1))

    def attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, causal: Causal
    ) -> torch.Tensor:
        key, value = (self.group.all_rows(states)[:, :, self._places] for states in (key, value))
        lengths = [piece.stop - piece.start for piece in self._pieces]
        queries = query.split([*lengths, self._padding], dim=2)
        parts = [
            piece_attention(part, key, value, piece, scaling, causal)
            for part, piece in zip(queries, self._pieces, strict=False)
        ]
        return torch.cat([*parts, queries[-1].new_zeros(*queries[-1].shape[:3], value.shape[3])], dim=2)


def _balanced(segments: Sequence[Sequence[int]], size: int, index: int) -> list[Piece]:
    """The pieces of process `index` of `size`: of each causal part the pieces `index` and `2 size - 1 - index`."""
    found = []
    for whole in pieces_of(segments):
        length = whole.stop - whole.start
        for number in (index, 2 * size - 1 - index):
            cuts = [whole.start + length * cut // (2 * size) for cut in (number, number + 1)]
            if cuts[0] < cuts[1]:
                found.append(whole._replace(start=cuts[0], stop=cuts[1]))
    return found


class Exchange(NamedTuple):
    """What determines the size of the exchanges of a layer.

    Attributes:
        heads: query heads.
        key_heads: key-value heads.
        width: of a head.
        itemsize: bytes of a number.
    """

    heads: int
    key_heads: int
    width: int
    itemsize: int

    def layer_bytes(self, tokens: int, size: int) -> int:
        """Bytes that a process sends in one forward pass of a layer; the backward pass sends as many.

        Args:
            tokens: s, of the row in each process.
            size: P processes.
        """
        if self.heads % size:
            return 2 * (size - 1) * tokens * self.key_heads * self.width * self.itemsize
        repeats = self.heads // self.key_heads // gcd(self.heads // size, self.heads // self.key_heads)
        states = 2 * self.heads + 2 * self.key_heads * repeats
        return states * tokens * self.width * self.itemsize * (size - 1) // size
