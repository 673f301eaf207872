"""Reading questions, with errors that say what to mend where.

Both papers' names are accepted: `id`, `question` (or `input`), `answer`, `context` of LongMab-PO, and `idx`, `query`,
`answer`, `context` of LongReward.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from lf_longpo.errors import UserError
from lf_longpo.records import Question
from lf_longpo.tables import places_and_rows

FIELDS = {
    "id": ("id", "idx"),
    "question": ("question", "input", "query"),
    "answer": ("answer",),
    "context": ("context",),
}
"""The names that a question's fields may have."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where questions come from, and which of them are meant."""

    name: str
    """A .jsonl, .json (a list) or .parquet file, or a hub name such as `org/name`."""
    split: str = "train"
    """The split of a hub data set."""
    needs_answers: bool = True
    """Whether a question without a gold answer is a fault."""
    start: int = 0
    """The first question that is meant, from 0."""
    end: int | None = None
    """The first that is not meant any more."""

    def rows(self) -> Iterator[tuple[str, Any]]:
        """The rows that are meant, each behind its place."""
        return islice(places_and_rows(self.name, self.split), self.start, self.end)


def read_questions(source: Source) -> Iterator[Question]:
    """Streams questions, in order.

    Raises:
        UserError: on the first fault, naming the file, the line or record, the field and the mend.
    """
    for place, row in source.rows():
        yield question_of(row, place, source.needs_answers)


def check_questions(source: Source, asked: Collection[str] = ()) -> dict[str, str]:
    """Reads all questions once, so that no fault appears after hours of work; gives their digests by id, in order.

    Args:
        source: where they come from.
        asked: what else determines what is asked; goes into the digests.

    Raises:
        UserError: the first fault, a duplicate id, or no questions at all.
    """
    placed = ((place, question_of(row, place, source.needs_answers)) for place, row in source.rows())
    digests = {question.id: question.digest(*asked) for question in refuse_repeated_ids(placed)}
    if not digests:
        behind = f" from the one with number {source.start} on" if source.start else ""
        raise UserError(f"{source.name} holds no questions{behind}")
    return digests


class _Known(Protocol):
    id: str

    @property
    def key(self) -> str: ...


Q = TypeVar("Q", bound=_Known)


def refuse_repeated_ids(placed: Iterable[tuple[str, Q]]) -> Iterator[Q]:
    """Hands on questions, each given behind its place.

    Raises:
        UserError: an id stands twice.
    """
    seen: dict[str, str] = {}
    for place, question in placed:
        if (other := seen.get(question.key)) is not None:
            raise UserError(f"{place}: id {question.id!r} stands already in {other}; make ids unique")
        seen[question.key] = place
        yield question


def question_of(row: Any, place: str, needs_answers: bool, fields: Mapping[str, Sequence[str]] = FIELDS) -> Question:
    """The question in a row.

    Args:
        row: as read.
        place: of the row, for the error.
        needs_answers: whether one without a gold answer is a fault.
        fields: the names that id, question, context and answer may have.

    Raises:
        UserError: it holds none.
    """
    if not isinstance(row, dict):
        names = ", ".join(known[0] for known in fields.values())
        raise UserError(f"{place}: an object with {names} is needed")
    texts = {field: _text(row, field, fields[field], place) for field in ("id", "question", "context")}
    names = fields["answer"]
    answers = _answers(row, names, place) if needs_answers or any(row.get(name) for name in names) else ()
    return Question(answers=answers, **texts)


def _named(names: Sequence[str]) -> str:
    return f"{names[0]} (or {' or '.join(names[1:])})" if len(names) > 1 else names[0]


def _text(row: dict[str, Any], field: str, names: Sequence[str], place: str) -> str:
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        raise UserError(f"{place}: the field {_named(names)} is missing; add it")
    value = row[name]
    if field == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{place}: the field {name} must be text, not {type(value).__name__}")
    if not value.strip():
        raise UserError(f"{place}: the field {name} is empty; fill it or remove the question")
    return value


def _answers(row: dict[str, Any], names: Sequence[str], place: str) -> tuple[str, ...]:
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        raise UserError(f"{place}: the field {_named(names)} is missing; add it")
    value = row[name]
    answers = value if isinstance(value, list) else [value]
    if not answers:
        raise UserError(f"{place}: the field {name} is an empty list; give at least one accepted answer")
    for answer in answers:
        if not isinstance(answer, str):
            raise UserError(f"{place}: the field {name} must be text or a list of texts, not {type(answer).__name__}")
        if not answer.strip():
            raise UserError(f"{place}: the field {name} is empty; fill it or remove the question")
    return tuple(answers)
