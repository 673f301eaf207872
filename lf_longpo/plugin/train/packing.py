"""Batches with one copy of each prompt: the prompt and its distinct responses, one after the other.

A batch is one row without padding. Its segments, not a mask, define which tokens attend to which. The positions of each
response continue from the end of its prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

IGNORE = -100
"""The label of tokens that are not in the loss, in PyTorch and LLaMA-Factory."""


class Segment(NamedTuple):
    """One example in a packed row.

    Attributes:
        prompt: tokens of the prompt.
        responses: tokens of each response; they follow the prompt in this order.
    """

    prompt: int
    responses: tuple[int, ...]


@dataclass
class _Row:
    """The packed row under construction.

    Attributes:
        ids: token ids.
        positions: position of each token in its example.
        segments: of the examples so far.
        keep: for each response the rows whose logits predict its tokens.
        targets: for each response the tokens that these rows predict.
    """

    ids: list[int]
    positions: list[int]
    segments: list[Segment]
    keep: list[list[int]]
    targets: list[list[int]]

    def add(self, branches: Sequence[tuple[list[int], list[int]]]) -> list[int]:
        """Adds an example by token ids and labels of each of its branches; returns the numbers of its responses."""
        prompt = _shared_prompt(branches)
        start = len(self.ids)
        self.ids += branches[0][0][:prompt]
        self.positions += range(prompt)
        numbers = []
        for ids, labels in branches:
            response_start = len(self.ids)
            self.ids += ids[prompt:]
            self.positions += range(prompt, len(ids))
            # The row before a token predicts it: for the first token of a response, the last row of the prompt.
            in_loss = [i for i in range(max(prompt, 1), len(ids)) if labels[i] != IGNORE]
            self.keep.append([start + prompt - 1 if i == prompt else response_start + i - prompt - 1 for i in in_loss])
            self.targets.append([labels[i] for i in in_loss])
            numbers.append(len(self.keep) - 1)
        self.segments.append(Segment(prompt, tuple(len(ids) - prompt for ids, _ in branches)))
        return numbers


def _shared_prompt(branches: Sequence[tuple[list[int], list[int]]]) -> int:
    """Number of tokens at the start that all branches share and that are in no branch's loss."""
    shared = min(next((i for i, label in enumerate(labels) if label != IGNORE), len(labels)) for _, labels in branches)
    first = branches[0][0]
    for ids, _ in branches[1:]:
        if ids[:shared] != first[:shared]:
            shared = next(i for i in range(shared) if ids[i] != first[i])
    return shared


def pack(examples: Sequence[Sequence[tuple[list[int], list[int]]]]) -> dict[str, Any]:
    """One packed batch.

    Args:
        examples: for each example its branches (one for each distinct response), each with token ids and labels.

    Returns:
        With N responses, S tokens and K of them in the loss:

        - response_lengths: (N,) tokens in the loss of each response, in the order of `response_order`.
        - input_ids, position_ids: (1, S).
        - keep: (K,) rows whose logits are needed; targets: (K,) the tokens that they predict.
        - owner: (K,) number of the response of each target; rank: (K,) its index in the loss of that response.
        - segments: the examples' `Segment`s as plain lists, for the attention.
    """
    row = _Row([], [], [], [], [])
    numbers = [row.add(branches) for branches in examples]
    order = [numbers[example][branch] for example, branch in response_order([len(of) for of in numbers])]
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


def response_order(branches: Sequence[int]) -> list[tuple[int, int]]:
    """The order of the responses in a packed batch: the first branches of all examples, then the second ones, ...

    With one pair for each example, this is LLaMA-Factory's order of a pairwise batch.

    Args:
        branches: number of branches of each example.

    Returns:
        The number of the example and of its branch, for each response.
    """
    return [
        (example, branch)
        for branch in range(max(branches))
        for example, number in enumerate(branches)
        if branch < number
    ]


class AnswerCollator:
    """Packs LLaMA-Factory's supervised features; the trainer counts tokens by `labels`."""

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A packed batch of examples with one response each, see `pack`."""
        batch = pack([[(feature["input_ids"], feature["labels"])] for feature in features])
        # (1, S): an evaluation gathers the labels of all processes, and pads the second dimension for it.
        return batch | {"labels": torch.tensor([[label for feature in features for label in feature["labels"]]])}
