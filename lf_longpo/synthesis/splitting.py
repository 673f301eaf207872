"""Holding questions out so that what they share with others goes with them."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Collection, Sequence

from lf_longpo.errors import UserError


class Groups:
    """Questions and what they have in common; whatever hangs together has one root."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def root(self, one: str) -> str:
        """The root of what `one` hangs together with."""
        while (parent := self._parents.setdefault(one, one)) != one:
            self._parents[one] = self._parents.setdefault(parent, parent)  # half the way for the next who asks
            one = parent
        return one

    def join(self, one: str, other: str) -> None:
        """Makes the two hang together."""
        self._parents[self.root(other)] = self.root(one)


def held_out(groups: Groups, ids: Sequence[str], number: int, seed: int) -> set[str]:
    """At least `number` of the questions: whole groups, those of few questions first, otherwise as the seed draws.

    Raises:
        UserError: they are not enough to leave something to train on.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for id in ids:
        members[groups.root(id)].append(id)
    order = list(members.values())
    random.Random(f"{seed}/held out").shuffle(order)
    order.sort(key=len)
    away: set[str] = set()
    for group in order:
        if len(away) < number:
            away |= set(group)
    if len(away) < number or len(away) == len(ids):
        raise UserError(
            f"held_out_questions: {len(ids)} questions are in {len(members)} groups that share no document; {number} "
            "cannot be held out with something left to train on; lower it"
        )
    return away


class Pools:
    """Which documents may stand in the contexts of which part; each stands in those of one part only.

    Args:
        train: titles' keys of the documents that training questions need.
        away: likewise of those that are held out.
        share: of all other documents, those that go to the latter.
        seed: the run's.
    """

    def __init__(self, train: Collection[str], away: Collection[str], share: float, seed: int) -> None:
        self._train = train
        self._away = away
        self._share = share
        self._seed = seed

    def is_away(self, key: str) -> bool:
        """Whether a document belongs to the questions that are held out."""
        if key in self._away or key in self._train:
            return key in self._away
        drawn = hashlib.sha256(f"{self._seed}/pool/{key}".encode()).digest()[:4]
        return int.from_bytes(drawn, "big") < self._share * 2**32
