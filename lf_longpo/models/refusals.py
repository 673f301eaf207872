"""Finds refusals that hold for every call, such as that of a parameter which the server does not know.

They end the run at once. Otherwise its other calls would be paid for nothing, while question after question fails.
"""

import re
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from lf_longpo.errors import Refused, UserError

# Number of questions with the same refusal, before any reply, after which the next call is taken to be refused, too.
# Calls are counted by question, because all calls of one question may be refused for its prompt.
_ENOUGH = 3
# Words that differ between calls: numbers, ids of requests.
_OF_ONE_CALL = re.compile(r"\S*\d\S*")


@dataclass(slots=True)
class _Kind:
    """Calls of one kind while none of them has been answered."""

    under_way: set[int] = field(default_factory=set)
    refused: dict[str, dict[int, str]] = field(default_factory=dict)
    """For each message of the server, the questions of the refused calls by the order of their start."""

    def holds(self, alike: Mapping[int, str]) -> bool:
        """Whether enough calls were refused alike, and no call that started before them may still be answered."""
        oldest = min(self.under_way, default=None)
        return len({question for number, question in alike.items() if oldest is None or number < oldest}) >= _ENOUGH


class Refusals:
    """The refusals of one model."""

    def __init__(self) -> None:
        self._numbers = count()
        self._kinds: dict[Hashable, _Kind] = {}
        self._answered: set[Hashable] = set()

    @contextmanager
    def watch(self, kind: Hashable, question: str) -> Iterator[None]:
        """Surrounds a call of a kind, for a question.

        Raises:
            UserError: no call of the kind was answered, and the first few were refused with the same message.
        """
        if kind in self._answered:
            yield
            return
        calls, number = self._kinds.setdefault(kind, _Kind()), next(self._numbers)
        calls.under_way.add(number)
        try:
            yield
        except Refused as error:
            calls.under_way.discard(number)
            alike = calls.refused.setdefault(_OF_ONE_CALL.sub("", str(error)), {})
            alike[number] = question
            if kind not in self._answered and calls.holds(alike):
                raise UserError(
                    f"{error}; the first calls like it, for {_ENOUGH} questions, were refused alike: change the "
                    "model's settings or its server, then start the same command again"
                ) from None
            raise
        else:
            self.answered(kind)
        finally:
            calls.under_way.discard(number)

    def answered(self, kind: Hashable) -> None:
        """Notes that a call of the kind was answered: later refusals concern single calls."""
        self._answered.add(kind)
        self._kinds.pop(kind, None)
