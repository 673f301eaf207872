"""Reading questions, with errors that say what to fix where.

Accepted are the names of LongMab-PO (`id`, `question` or `input`, `answer` or, in its evaluation sets, `answers`,
`context`), of LongReward (`idx`, `query`, `answer`, `context`) and of LongBench (`_id`, `input`, `answers`, `context`).
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

from lf_longpo.data.records import Question
from lf_longpo.errors import UserError
from lf_longpo.files.faults import AT_ONCE, Faults, parsed
from lf_longpo.files.tables import PlacedRows, places_and_rows

FIELDS = {
    "id": ("id", "idx", "_id"),
    "question": ("question", "input", "query"),
    "answer": ("answer", "answers"),
    "context": ("context",),
}
"""The names that a question's fields may have; the first one that is filled counts."""
# What a table program makes of a list of texts in a CSV file: as one text, no model's answer would match it.
_WRITTEN_LIST = re.compile(r"""\[\s*(['"]).*\1\s*\]""", re.DOTALL)
# Fields of HotpotQA, 2WikiMultiHopQA and MuSiQue, whose contexts are no text yet.
_MULTIHOP = {"supporting_facts", "paragraphs"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where questions come from, and which of them are meant."""

    name: str
    """A .jsonl, .json, .parquet or .csv file, or a hub name such as `org/name`."""
    split: str = "train"
    """The split of a hub data set."""
    needs_answers: bool = True
    """Whether a question without a gold answer is a fault."""
    start: int = 0
    """The first question that is meant, from 0."""
    end: int | None = None
    """The first that is not meant any more."""

    def rows(self, faults: Faults = AT_ONCE) -> PlacedRows:
        """The rows that are meant, each after its place; `faults` takes those that cannot be read."""
        return islice(places_and_rows(self.name, self.split, faults), self.start, self.end)


def placed_questions(source: Source, faults: Faults = AT_ONCE) -> Iterator[tuple[str, Question]]:
    """Streams questions, in order, each after its place.

    Args:
        source: where they come from.
        faults: takes the rows that are no questions.

    Raises:
        UserError: the source cannot be read at all; it names file, line or record, field and fix.
    """
    return parsed(source.rows(faults), partial(question_of, needs_answers=source.needs_answers), faults)


def read_questions(source: Source) -> Iterator[Question]:
    """Streams the questions of a source that was checked.

    Raises:
        UserError: on the first fault.
    """
    return (question for _, question in placed_questions(source))


def check_questions(source: Source, asked: Collection[str] = ()) -> dict[str, str]:
    """Reads all questions once, so that no fault appears after hours of work; gives their digests by id, in order.

    Args:
        source: where they come from.
        asked: what else determines what is asked; goes into the digests.

    Raises:
        UserError: rows that are no questions, ids that occur twice (all of them at once), or no questions at all.
    """
    with Faults() as faults:
        placed = refuse_repeated_ids(placed_questions(source, faults), faults)
        digests = {question.id: question.digest(*asked) for _, question in placed}
    if not digests:
        behind = f" from the one with number {source.start} on" if source.start else ""
        raise UserError(f"{source.name} holds no questions{behind}")
    return digests


class _Known(Protocol):
    id: str

    @property
    def key(self) -> str: ...


Q = TypeVar("Q", bound=_Known)


def refuse_repeated_ids(placed: Iterable[tuple[str, Q]], faults: Faults = AT_ONCE) -> Iterator[tuple[str, Q]]:
    """Hands on questions, each after its place; `faults` takes those whose id occurred before."""
    seen: dict[str, str] = {}
    for place, question in placed:
        first = seen.setdefault(question.key, place)
        if first is place:
            yield place, question
        else:
            faults.add(UserError(f"{place}: id {question.id!r} stands already in {first}; make ids unique"))


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
        raise UserError(f"{place}: an object with {', '.join(FIELDS)} is needed, not {type(row).__name__}")
    texts = {field: _text(row, field, place) for field in ("id", "question", "context")}
    answers = _answers(row, place) if needs_answers or filled_name(row, "answer") else ()
    return Question(answers=answers, **texts)


def question_id(row: dict[str, Any]) -> str | None:
    """The id of a question's row, as `question_of` reads it; None where it has none."""
    name = filled_name(row, "id")
    return name and str(row[name])


def filled_name(row: dict[str, Any], field: str) -> str | None:
    """The first of the names in `FIELDS` whose value is neither null nor empty; None where there is none."""
    return next((name for name in FIELDS[field] if not _is_empty(row.get(name))), None)


def _is_empty(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _named(row: dict[str, Any], field: str, place: str) -> tuple[str, Any]:
    """The field's name in a row, and its value.

    Raises:
        UserError: it is missing or empty.
    """
    if name := filled_name(row, field):
        return name, row[name]
    hint = "; longpo synthesize multihop makes questions of this data set" if _MULTIHOP & set(row) else ""
    if name := next((name for name in FIELDS[field] if row.get(name) is not None), None):
        empty = "an empty list; give at least one accepted answer" if row[name] == [] else "empty; fill it"
        raise UserError(f"{place}: the field {name} is {empty} or remove the question{hint}")
    first, *others = FIELDS[field]
    named = f"{first} (or {' or '.join(others)})" if others else first
    there = ", ".join(row) or "none"
    raise UserError(f"{place}: the field {named} is missing; add it (the row has {there:.200}){hint}")


def _text(row: dict[str, Any], field: str, place: str) -> str:
    name, value = _named(row, field, place)
    if field == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        fix = "write it as text"
        if field == "context":
            fix = "join its passages into one text, with a blank line between them"
        if _MULTIHOP & set(row):
            fix = "longpo synthesize multihop makes questions of this data set"
        raise UserError(f"{place}: the field {name} must be text, not {type(value).__name__}; {fix}")
    return value


def _answers(row: dict[str, Any], place: str) -> tuple[str, ...]:
    name, value = _named(row, "answer", place)
    answers = value if isinstance(value, list) else [value]
    for answer in answers:
        if not isinstance(answer, str):
            kind = type(answer).__name__
            raise UserError(f"{place}: the field {name} must be text or a list of texts, not {kind}; write it as text")
        if not answer.strip():
            raise UserError(f"{place}: the field {name} is empty; fill it or remove the question")
        if _WRITTEN_LIST.fullmatch(answer.strip()):
            raise UserError(
                f"{place}: the field {name} holds a list as text; write the questions as .jsonl with a list"
            )
    return tuple(answers)
