"""What a generation method brings to a run, and what the run gives it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lf_longpo.data.pairs import Pairs
from lf_longpo.data.questions import Source
from lf_longpo.data.records import Question
from lf_longpo.engine.pipeline import Failures
from lf_longpo.engine.progress import Progress
from lf_longpo.models.cache import CallCache
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.usage import Usage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Tools:
    """What all methods work with."""

    tokenizer: "PreTrainedTokenizerBase"
    cache: CallCache
    ledger: Ledger
    progress: Progress


class Method(Protocol):
    """A way from questions to pairs. Its methods are called in the order in which they stand here."""

    asked: Sequence[str]
    """What beside the question determines what is asked (prompt templates); goes into the questions' digests."""
    source: Source
    """Where the questions come from."""
    stages: Sequence[str]
    """Its stages in order; the last one makes the pairs."""
    in_flight: int
    """Questions to work on at once."""
    repairs: Collection[str]
    """Settings beside `pairs` that only determine how pairs are made of finished work."""

    def check(self, digests: Mapping[str, str]) -> int:
        """Looks at what else the run will read, and tells how many steps it has; `digests` are the questions' by id.

        Raises:
            UserError: something of it cannot be used.
        """
        ...

    def estimate(self, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """What a run from its beginning is expected to take, by stage, without calling anybody."""
        ...

    def equip(self, tools: Tools) -> None:
        """Takes its tools.

        Raises:
            UserError: a model's settings cannot work.
        """
        ...

    async def start(self) -> None:
        """Starts the models that still have work to do.

        Raises:
            UserError: one of them cannot be used.
        """
        ...

    def open(self, pairs: Pairs, failures: Failures) -> list[str]:
        """Opens its journals in the run's folder; gives lines that announce the stages."""
        ...

    async def work(self, question: Question) -> None:
        """Takes one question from wherever it stands to its pair, or to the knowledge that it gives none."""
        ...

    def summary(self) -> dict[str, Any]:
        """What the run came to, beside pairs, failures and calls."""
        ...

    async def close(self) -> None:
        """Closes journals and models."""
        ...
