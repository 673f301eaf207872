"""Reading questions, with errors that say what to mend where.

Both papers' names are accepted: `id`, `question` (or `input`), `answer`, `context` of LongMab-PO, and `idx`, `query`,
`answer`, `context` of LongReward.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.records import Question
from lf_longpo.tables import places_and_rows

_FIELDS = {"id": ("id", "idx"), "question": ("question", "input", "query"), "context": ("context",)}


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
    digests = digests_by_id(placed, asked)
    if not digests:
        behind = f" from the one with number {source.start} on" if source.start else ""
        raise UserError(f"{source.name} holds no questions{behind}")
    return digests


def digests_by_id(placed: Iterable[tuple[str, Question]], asked: Collection[str]) -> dict[str, str]:
    """The digests of questions, each given behind its place, by id and in order.

    Raises:
        UserError: an id stands twice.
    """
    seen: dict[str, str] = {}
    digests: dict[str, str] = {}
    for place, question in placed:
        if question.id in seen:
            raise UserError(f"{place}: id {question.id!r} stands already in {seen[question.id]}; make ids unique")
        seen[question.id] = place
        digests[question.id] = question.digest(*asked)
    return digests


def question_of(row: Any, place: str, needs_answers: bool) -> Question:
    """The question in a row.

    Args:
        row: as read.
        place: of the row, for the error.
        needs_answers: whether one without a gold answer is a fault.

    Raises:
        UserError: it holds none.
    """
    if not isinstance(row, dict):
        raise UserError(f"{place}: an object with id, question, answer and context is needed")
    fields = {field: _text(row, field, names, place) for field, names in _FIELDS.items()}
    answers = _answers(row, place) if needs_answers or row.get("answer") else ()
    return Question(answers=answers, **fields)


def _text(row: dict[str, Any], field: str, names: tuple[str, ...], place: str) -> str:
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        others = f" (or {' or '.join(names[1:])})" if len(names) > 1 else ""
        raise UserError(f"{place}: the field {names[0]}{others} is missing; add it")
    value = row[name]
    if field == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{place}: the field {name} must be text, not {type(value).__name__}")
    if not value.strip():
        raise UserError(f"{place}: the field {name} is empty; fill it or remove the question")
    return value


def _answers(row: dict[str, Any], place: str) -> tuple[str, ...]:
    value = row.get("answer")
    if value is None:
        raise UserError(f"{place}: the field answer is missing; add it")
    answers = value if isinstance(value, list) else [value]
    if not answers:
        raise UserError(f"{place}: the field answer is an empty list; give at least one accepted answer")
    for answer in answers:
        if not isinstance(answer, str):
            raise UserError(f"{place}: the field answer must be text or a list of texts, not {type(answer).__name__}")
        if not answer.strip():
            raise UserError(f"{place}: the field answer is empty; fill it or remove the question")
    return tuple(answers)
