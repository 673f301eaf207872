"""Holding questions out together with all questions that they share a document with."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from lf_longpo.errors import UserError

if TYPE_CHECKING:
    from scipy.cluster.hierarchy import DisjointSet


def _grouped(shared: Mapping[str, Iterable[str]]) -> "DisjointSet":
    """Disjoint sets of ("question", id) and ("shared", key)."""
    from scipy.cluster.hierarchy import DisjointSet

    groups = DisjointSet()
    for id, keys in shared.items():
        groups.add(("question", id))
        for key in keys:
            groups.add(("shared", key))
            groups.merge(("question", id), ("shared", key))
    return groups


def held_out(shared: Mapping[str, Iterable[str]], number: int, seed: int) -> set[str]:
    """Ids of at least `number` questions: whole groups, the smallest first, groups of one size in random order.

    Args:
        shared: keys of the documents and contexts of each question, by its id. Questions with a key in common are in
            one group.
        number: the fewest questions to hold out.
        seed: of the order.

    Raises:
        UserError: no question would be left to train on.
    """
    groups = _grouped(shared)
    members: dict[object, list[str]] = defaultdict(list)
    for id in shared:
        members[groups["question", id]].append(id)
    order = list(members.values())
    random.Random(f"{seed}/held out").shuffle(order)
    order.sort(key=len)
    away: set[str] = set()
    for group in order:
        if len(away) < number:
            away |= set(group)
    if len(away) < number or len(away) == len(shared):
        raise UserError(
            f"held_out_questions: {len(shared)} questions form {len(members)} groups that share no document; holding "
            f"out {number} leaves none to train on; lower held_out_questions"
        )
    return away


class Pools:
    """Divides documents between the contexts of training and held-out questions, so that they share none.

    Args:
        train: keys of the titles that training questions need.
        away: keys of the titles that held-out questions need.
        share: share of all other documents that goes to the held-out questions.
        seed: the run's.
    """

    def __init__(self, train: Collection[str], away: Collection[str], share: float, seed: int) -> None:
        self._train = train
        self._away = away
        self._share = share
        self._seed = seed

    def is_away(self, key: str) -> bool:
        """Whether the document with this key belongs to the held-out questions."""
        if key in self._away or key in self._train:
            return key in self._away
        drawn = hashlib.sha256(f"{self._seed}/pool/{key}".encode()).digest()[:4]
        return int.from_bytes(drawn, "big") < self._share * 2**32
