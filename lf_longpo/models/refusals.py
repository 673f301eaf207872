"""Refusals that hold for every call, such as that of a parameter which the server does not know.

Met call by call they cost a run's other calls, which are paid for nothing.
"""

import re
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from lf_longpo.errors import Refused, UserError

# Questions whose calls were refused alike, with no reply before them, that show that the next call is refused, too. The
# calls of one question share its prompt, which may be all that the server refuses.
_ENOUGH = 3
# Words that differ from call to call: numbers, ids of requests.
_OF_ONE_CALL = re.compile(r"\S*\d\S*")


@dataclass(slots=True)
class _Kind:
    """Calls that ask for the same things, none of which has been answered yet."""

    under_way: set[int] = field(default_factory=set)
    refused: dict[str, dict[int, str]] = field(default_factory=dict)
    """Questions of the refused calls by the order of their start, by what the server said."""

    def holds(self, alike: Mapping[int, str]) -> bool:
        """Whether the first calls were all refused so, and none that began before them may still be answered."""
        oldest = min(self.under_way, default=None)
        return len({question for place, question in alike.items() if oldest is None or place < oldest}) >= _ENOUGH


class Refusals:
    """The refusals of one model."""

    def __init__(self) -> None:
        self._places = count()
        self._kinds: dict[Hashable, _Kind] = {}
        self._answered: set[Hashable] = set()

    @contextmanager
    def watch(self, kind: Hashable, question: str) -> Iterator[None]:
        """Around one call of a kind, for a question.

        Raises:
            UserError: no call of the kind was answered, and this is one of the first few that the server has refused
                in the same words.
        """
        if kind in self._answered:
            yield
            return
        calls, place = self._kinds.setdefault(kind, _Kind()), next(self._places)
        calls.under_way.add(place)
        try:
            yield
        except Refused as error:
            calls.under_way.discard(place)
            alike = calls.refused.setdefault(_OF_ONE_CALL.sub("", str(error)), {})
            alike[place] = question
            if kind not in self._answered and calls.holds(alike):
                raise UserError(
                    f"{error}; the first calls like it, for {_ENOUGH} questions, were refused alike: change the "
                    "model's settings or its server, then start the same command again"
                ) from None
            raise
        else:
            self.answered(kind)
        finally:
            calls.under_way.discard(place)

    def answered(self, kind: Hashable) -> None:
        """Notes that a call of the kind has been answered, so that refusals are those of single calls."""
        self._answered.add(kind)
        self._kinds.pop(kind, None)
