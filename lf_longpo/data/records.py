"""The records that pass between the stages of a run; a journal holds one per line."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class Question:
    """One question over a long context."""

    id: str
    question: str
    answers: tuple[str, ...]
    """Accepted gold answers; empty if the input has none and the method needs none."""
    context: str

    @property
    def key(self) -> str:
        """Identifies the question in a run."""
        return self.id

    def digest(self, *settings: str) -> str:
        """A hash of everything except the id: it changes when the question or what is asked about it changes.

        Args:
            settings: what else determines the requests, such as prompt templates and the adapter.
        """
        parts = json.dumps([self.question, self.answers, self.context, settings])
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Probe:
    """The policy's answer to a question together with its gold answer (LongMab-PO's first stage)."""

    id: str
    digest: str
    """`Question.digest` when the probe was made; another digest now means that the question has changed."""
    kept: bool
    """Whether the output has the gold answer; if not, the question is skipped (probe failed)."""
    probe: str
    initial_values: list[float]
    """One value per arm; empty if the probe failed."""
    thought: str = ""
    """The policy's thought; not part of the probe."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One round of one question's bandit."""

    id: str
    round: int
    """From 0."""
    arms: list[int]
    """Indices of the chunks in the prompt, in document order."""
    output: str
    reward: float
    values: list[float]
    """The values of all arms after this round."""
    truncated: bool = False
    """Whether the output was cut off at `max_new_tokens`."""
    thought: str = ""
    """The policy's thought; not part of the output. Without an output, the thought did not end."""


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """A response and its reward."""

    text: str
    reward: float
    index: int
    """Which of the question's responses it is: its round, or the number of its sample."""
    thought: str = ""
    """The policy's thought; not part of the text."""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A training example in LLaMA-Factory's ranking format, with its origin."""

    id: str
    input: str
    answer: str | list[str]
    prompt: str
    chosen: str
    rejected: str
    chosen_reward: float
    rejected_reward: float
    chosen_index: int
    """See `ScoredResponse.index`."""
    rejected_index: int


def row_of(record: "DataclassInstance") -> dict[str, Any]:
    """A record as a journal's row; an empty `thought` is not written."""
    row = asdict(record)
    if not row.get("thought"):
        row.pop("thought", None)
    return row


def record_of(kind: type[R], row: Mapping[str, Any]) -> R:
    """The record in a journal's row; fields that only a later version knows are ignored."""
    return kind(**{field.name: row[field.name] for field in fields(kind) if field.name in row})


def names(row: "type[DataclassInstance]") -> list[str]:
    """The fields that a row must have: those without a default. Fields that were added later have one."""
    return [field.name for field in fields(row) if field.default is MISSING]
