"""Packed batches of pairs: pairs with the same prompt share its tokens, and each distinct response is there once."""

import hashlib
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from lf_longpo.plugin.train.packing import pack, response_order

REWARDS = ("chosen_reward", "rejected_reward")
"""The columns of a data set with the rewards of both responses."""


class PairCollator:
    """Packs groups of LLaMA-Factory's pairwise features, see `groups.Groups`: each distinct response once."""

    def __call__(self, groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A packed batch, see `pack`, of P pairs with R distinct responses.

        Returns:
            Also:

            - sides: (2P,) the response of each side: the chosen ones of all pairs, then the rejected ones.
            - prompts: (P,) number of the group of each pair.
            - rewards: (2P,) of each side, where the data set has rewards.
            - digests: identifies each of the R responses, by its token ids and labels.
            - pairs_per_group: mean number of pairs of a group in the data set.
        """
        examples = [branches_of(group["pairs"]) for group in groups]
        order = response_order([len(example.branches) for example in examples])
        position = {key: number for number, key in enumerate(order)}
        pairs = [(number, pair) for number, example in enumerate(examples) for pair in example.pairs]
        packed = pack([example.branches for example in examples])
        packed |= {
            "sides": torch.tensor([position[number, pair[side]] for side in (0, 1) for number, pair in pairs]),
            "prompts": torch.tensor([number for number, _ in pairs]),
            "digests": [examples[number].digests[branch] for number, branch in order],
            "pairs_per_group": groups[0]["pairs_per_group"],
        }
        features = [feature for group in groups for feature in group["pairs"]]
        if REWARDS[0] in features[0]:
            rewards = [feature[column] for column in REWARDS for feature in features]
            packed["rewards"] = torch.tensor(rewards, dtype=torch.float32)
        return packed


class Branches(NamedTuple):
    """The distinct responses of one prompt.

    Attributes:
        branches: token ids and labels of each, with the prompt.
        digests: of each branch.
        pairs: for each pair the numbers of its chosen and of its rejected branch.
    """

    branches: list[tuple[list[int], list[int]]]
    digests: list[str]
    pairs: list[tuple[int, int]]


def branches_of(pairs: Sequence[dict[str, Any]]) -> Branches:
    """The distinct responses of pairs with the same prompt, in the order in which they first occur."""
    branches: dict[str, tuple[list[int], list[int]]] = {}
    numbers: dict[str, int] = {}
    found = []
    for pair in pairs:
        sides = []
        for side in ("chosen", "rejected"):
            branch = (pair[f"{side}_input_ids"], pair[f"{side}_labels"])
            digest = digest_of(*branch)
            branches.setdefault(digest, branch)
            sides.append(numbers.setdefault(digest, len(numbers)))
        found.append((sides[0], sides[1]))
    return Branches(list(branches.values()), list(branches), found)


def digest_of(ids: Sequence[int], labels: Sequence[int] = ()) -> str:
    """Identifies a branch, or any tokens, by their ids and labels."""
    return hashlib.sha256(array("q", [len(ids), *ids, *labels]).tobytes()).hexdigest()[:32]
