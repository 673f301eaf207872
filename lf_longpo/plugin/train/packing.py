"""Batches in which a prompt stands once: prompt, chosen and rejected response of every pair, one behind the other.

A batch is one row without padding. Which token may see which is told by its segments, not by a mask; positions of each
response count on from the prompt's end.
"""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

IGNORE = -100


class Segment(NamedTuple):
    """One example in a packed row.

    Attributes:
        prompt: tokens of the prompt.
        responses: tokens of each response; they stand behind the prompt in this order.
    """

    prompt: int
    responses: tuple[int, ...]


@dataclass
class _Row:
    """The packed row under construction."""

    ids: list[int]
    positions: list[int]
    segments: list[Segment]
    # One list a response: rows whose logits tell its tokens, and these tokens.
    keep: list[list[int]]
    targets: list[list[int]]

    def add(self, branches: Sequence[tuple[list[int], list[int]]]) -> list[int]:
        """Adds an example, given token ids and labels of each of its branches; gives the numbers of its responses."""
        prompt = _shared_prompt(branches)
        start = len(self.ids)
        self.ids += branches[0][0][:prompt]
        self.positions += range(prompt)
        numbers = []
        for ids, labels in branches:
            behind = len(self.ids)  # where this response begins
            self.ids += ids[prompt:]
            self.positions += range(prompt, len(ids))
            # The token at i is told by the row before it: for a response's first token, the prompt's last row.
            told = [i for i in range(max(prompt, 1), len(ids)) if labels[i] != IGNORE]
            self.keep.append([start + prompt - 1 if i == prompt else behind + i - prompt - 1 for i in told])
            self.targets.append([labels[i] for i in told])
            numbers.append(len(self.keep) - 1)
        self.segments.append(Segment(prompt, tuple(len(ids) - prompt for ids, _ in branches)))
        return numbers


def _shared_prompt(branches: Sequence[tuple[list[int], list[int]]]) -> int:
    """How many tokens all branches begin with that are in none of their losses."""
    shared = min(next((i for i, label in enumerate(labels) if label != IGNORE), len(labels)) for _, labels in branches)
    first = branches[0][0]
    for ids, _ in branches[1:]:
        if ids[:shared] != first[:shared]:
            shared = next(i for i in range(shared) if ids[i] != first[i])
    return shared


def pack(examples: Sequence[Sequence[tuple[list[int], list[int]]]]) -> dict[str, Any]:
    """One packed batch.

    Args:
        examples: of each example its branches (two of a pair, one otherwise), each with token ids and labels.

    Returns:
        With N responses, S tokens and K of them in the loss:

        - response_lengths: (N,) tokens in the loss of each response; first branches of all examples, then the second
          ones, which is LLaMA-Factory's order of a pairwise batch.
        - input_ids, position_ids: (1, S).
        - keep: (K,) rows whose logits are needed; targets: (K,) the tokens that they are to tell.
        - owner: (K,) to which response each belongs; rank: (K,) its place in that response's loss.
        - segments: the examples' `Segment`s as plain lists, for the attention.
    """
    row = _Row([], [], [], [], [])
    numbers = [row.add(branches) for branches in examples]
    order = [of[branch] for branch in range(len(numbers[0])) for of in numbers]
    keep, targets = [row.keep[number] for number in order], [row.targets[number] for number in order]
    lengths = [len(rows) for rows in keep]
    return {
        "response_lengths": torch.tensor(lengths),
        "input_ids": torch.tensor([row.ids]),
        "position_ids": torch.tensor([row.positions]),
        "keep": torch.tensor([index for rows in keep for index in rows], dtype=torch.long),
        "targets": torch.tensor([token for tokens in targets for token in tokens], dtype=torch.long),
        "owner": torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)),
        "rank": torch.tensor([rank for length in lengths for rank in range(length)], dtype=torch.long),
        "segments": [[segment.prompt, *segment.responses] for segment in row.segments],
    }


class PairCollator:
    """Packs LLaMA-Factory's pairwise features. `digests` tells pairs apart by what they hold."""

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A packed batch of pairs, see `pack`."""
        branches = [
            [(feature[f"{side}_input_ids"], feature[f"{side}_labels"]) for side in ("chosen", "rejected")]
            for feature in features
        ]
        return pack(branches) | {"digests": [_digest(pair) for pair in branches]}


def _digest(branches: Sequence[tuple[list[int], list[int]]]) -> str:
    told = hashlib.sha256()
    for ids, labels in branches:
        told.update(array("q", [len(ids), *ids, *labels]).tobytes())
    return told.hexdigest()[:32]


class AnswerCollator:
    """Packs LLaMA-Factory's supervised features; `labels` are what the trainer counts tokens by."""

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A packed batch of examples with one response each, see `pack`."""
        batch = pack([[(feature["input_ids"], feature["labels"])] for feature in features])
        return batch | {"labels": torch.tensor([label for feature in features for label in feature["labels"]])}
