"""The rows that flow between the stages of a run, as they stand in its journals."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Question:
    """One question over a long context."""

    id: str
    question: str
    answers: tuple[str, ...]
    """Accepted answers; none where the method needs none and the input has none."""
    context: str

    @property
    def key(self) -> str:
        """Tells it from all others of a run."""
        return self.id

    def digest(self, *asked: str) -> str:
        """A hash of all but the id, and of what else determines what is asked (prompt templates, an adapter)."""
        parts = json.dumps([self.question, self.answers, self.context, asked])
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Probe:
    """What the policy wrote when it was shown the answer (LongMab-PO's first stage)."""

    id: str
    digest: str
    """Of the question and its prompts: tells whether it is still what was worked on before."""
    kept: bool
    """Whether it arrived at the gold answer; the question is left out otherwise."""
    probe: str
    initial_values: list[float]
    """One value an arm; empty where the probe was not kept."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One round of one question's bandit."""

    id: str
    round: int
    """From 0."""
    arms: list[int]
    """Chunks that were shown, in document order."""
    output: str
    reward: float
    values: list[float]
    """All arm values after this round."""
    truncated: bool = False
    """Whether the output was cut off at the most tokens it may have."""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A training example of LLaMA-Factory's ranking format, with where it came from."""

    id: str
    input: str
    answer: str | list[str]
    prompt: str
    chosen: str
    rejected: str
    chosen_reward: float
    rejected_reward: float
    chosen_index: int
    """Round of the chosen roll-out, or number of the chosen sample."""
    rejected_index: int


def record_of(kind: type[R], row: Mapping[str, Any]) -> R:
    """The record in a row of a journal, without the fields that a later version has added to it."""
    return kind(**{field.name: row[field.name] for field in fields(kind) if field.name in row})


def names(row: type) -> list[str]:
    """The fields that a kind of row must have: those that came later have a default."""
    return [field.name for field in fields(row) if field.default is MISSING]
