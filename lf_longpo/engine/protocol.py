"""The two objects of a generation method: a plan, which is checked and priced, and a run, which works.

A plan opens and writes nothing. It names its models in a session and opens a run with them.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from lf_longpo.config import ChatConfig, EmbedderConfig
from lf_longpo.data.pairs import Pairs
from lf_longpo.data.questions import Source
from lf_longpo.data.records import Question
from lf_longpo.engine.failures import Failures
from lf_longpo.engine.outcomes import Outcomes
from lf_longpo.engine.progress import Progress
from lf_longpo.engine.session import Session
from lf_longpo.models.usage import Usage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where a run of any method puts what it makes."""

    pairs: Pairs
    failures: Failures
    progress: Progress
    outcomes: Outcomes


class Run(Protocol):
    """A method at work: its journals are open and its models can be called."""

    @property
    def announcement(self) -> Sequence[str]:
        """Lines that say what it uses and where its files are."""
        ...

    async def work(self, question: Question) -> None:
        """Takes one question from its last finished step to its pair, or to an outcome without a pair.

        Raises:
            CallFailed: a call was lost that the question needs.
            UserError: no call can work.
        """
        ...

    def finished(self) -> set[str]:
        """The ids of the questions that may need no call any more, by the journals."""
        ...

    def summary(self) -> dict[str, Any]:
        """What the method adds to the summary of the run."""
        ...


class Plan(Protocol[M]):
    """What a method is going to do: its input is read and checked, and nothing is opened or written.

    `M` is what holds the method's models.

    Args:
        config: the run's, of the method's own kind.
        until: the stage after which to stop.

    Raises:
        UserError: input or settings cannot work.
    """

    stages: ClassVar[Sequence[str]]
    """Its stages in order; the last one makes the pairs."""
    redone: ClassVar[Sequence[str]]
    """Settings, and sections (ending with a dot), that may change between two starts: what they determine is made
    again, without calls."""
    source: Source
    """Where the questions come from."""
    steps: int
    """Steps of all questions together."""
    in_flight: int
    """Questions to work on at once."""

    def __init__(self, config: Any, until: str) -> None: ...

    @property
    def digests(self) -> Mapping[str, str]:
        """Hashes of the questions and of the prompts, by question id, in the input's order."""
        ...

    def estimate(self, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """The usage that a new run is expected to take, by stage; makes no calls."""
        ...

    def models(self, session: Session, tokenizer: "PreTrainedTokenizerBase") -> M:
        """The method's models, not started.

        Raises:
            UserError: the settings of a model cannot work.
        """
        ...

    def needed(self) -> Sequence[ChatConfig | EmbedderConfig]:
        """The models that still have work to do."""
        ...

    def open(self, models: M, sinks: Sinks) -> AbstractContextManager[Run]:
        """Opens the journals in the run's folder, which the session has locked; closes them after the block."""
        ...
