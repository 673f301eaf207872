"""Reading questions; every error names the row and the fix.

The field names of three families are accepted:

- LongMab-PO: `id`, `question` or `input`, `answer` (`answers` in its evaluation sets), `context`
- LongReward: `idx`, `query`, `answer`, `context`
- LongBench: `_id`, `input`, `answers`, `context`
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
"""The names that a question's fields may have; the first name with a value counts."""
# A list of answers that a spreadsheet wrote into one CSV cell. As one text, it would match no model's answer.
_WRITTEN_LIST = re.compile(r"""\[\s*(['"]).*\1\s*\]""", re.DOTALL)
# Fields of HotpotQA, 2WikiMultiHopQA and MuSiQue. Their contexts are lists of passages.
_MULTIHOP = {"supporting_facts", "paragraphs"}
_CONVERT = "run longpo synthesize multihop to convert this data set to questions"


@dataclass(frozen=True, slots=True)
class Source:
    """Where questions come from, and the range of rows to use."""

    name: str
    """A .jsonl, .json, .parquet or .csv file, or a data set on the hub such as `org/name`."""
    split: str = "train"
    """The split of a hub data set."""
    needs_answers: bool = True
    """Whether a question without a gold answer is an error."""
    start: int = 0
    """Index of the first row to use, from 0."""
    end: int | None = None
    """Index after the last row to use; None for all rows."""

    def rows(self, faults: Faults = AT_ONCE) -> PlacedRows:
        """The rows in the range, each with its location; `faults` collects those that cannot be read."""
        return islice(places_and_rows(self.name, self.split, faults), self.start, self.end)


def placed_questions(source: Source, faults: Faults = AT_ONCE) -> Iterator[tuple[str, Question]]:
    """Streams questions in order, each with its location ("q.jsonl, line 7").

    Args:
        source: where the questions come from.
        faults: collects the errors of rows that are not questions.

    Raises:
        UserError: the source cannot be read at all; the message names the file and the fix.
    """
    return parsed(source.rows(faults), partial(question_of, needs_answers=source.needs_answers), faults)


def read_questions(source: Source) -> Iterator[Question]:
    """Streams the questions of a source that `check_questions` accepted.

    Raises:
        UserError: a row is not a question.
    """
    return (question for _, question in placed_questions(source))


def check_questions(source: Source, settings: Collection[str] = ()) -> dict[str, str]:
    """Reads all questions once, so that no bad row ends a run after hours of work.

    Args:
        source: where the questions come from.
        settings: what else determines the requests, see `Question.digest`.

    Returns:
        The questions' digests by id, in order.

    Raises:
        UserError: rows are not questions or repeat an id (one error lists them), or there are no questions.
    """
    with Faults() as faults:
        placed = refuse_repeated_ids(placed_questions(source, faults), faults)
        digests = {question.id: question.digest(*settings) for _, question in placed}
    if not digests:
        after = f" after the first {source.start} rows; lower start" if source.start else "; name another file"
        raise UserError(f"{source.name} holds no questions{after}")
    return digests


class _HasKey(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def key(self) -> str: ...


Q = TypeVar("Q", bound=_HasKey)


def refuse_repeated_ids(placed: Iterable[tuple[str, Q]], faults: Faults = AT_ONCE) -> Iterator[tuple[str, Q]]:
    """Passes questions on, each with its location, except those with an id that an earlier question has.

    Args:
        placed: questions, each with its location.
        faults: collects the errors about repeated ids.
    """
    seen: dict[str, str] = {}
    for location, question in placed:
        first = seen.setdefault(question.key, location)
        if first is location:
            yield location, question
        else:
            faults.add(UserError(f"{location}: id {question.id!r} is already used in {first}; make ids unique"))


def question_of(row: Any, location: str, needs_answers: bool) -> Question:
    """The question in a row.

    Args:
        row: any JSON value.
        location: where the row is ("q.jsonl, line 7"), for the error.
        needs_answers: whether a question without a gold answer is an error.

    Raises:
        UserError: the row is not a question.
    """
    if not isinstance(row, dict):
        kind = type(row).__name__
        raise UserError(f"{location}: must be an object with {', '.join(FIELDS)}, not {kind}; write one object per row")
    texts = {field: _text(row, field, location) for field in ("id", "question", "context")}
    answers = _answers(row, location) if needs_answers or filled_name(row, "answer") else ()
    return Question(answers=answers, **texts)


def question_id(row: dict[str, Any]) -> str | None:
    """The id of a question's row, as `question_of` reads it; None if it has none."""
    name = filled_name(row, "id")
    return name and str(row[name])


def filled_name(row: dict[str, Any], field: str) -> str | None:
    """The first of the field's names in `FIELDS` with a value that is neither null nor empty; None if there is none."""
    return next((name for name in FIELDS[field] if not _is_empty(row.get(name))), None)


def _is_empty(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _named(row: dict[str, Any], field: str, location: str) -> tuple[str, Any]:
    """The field's name in a row, and its value.

    Raises:
        UserError: the field is missing or empty.
    """
    if name := filled_name(row, field):
        return name, row[name]
    hint = f"; {_CONVERT}" if _MULTIHOP & set(row) else ""
    if name := next((name for name in FIELDS[field] if row.get(name) is not None), None):
        empty = "an empty list; give at least one accepted answer" if row[name] == [] else "empty; fill it"
        raise UserError(f"{location}: the field {name} is {empty} or remove the question{hint}")
    first, *others = FIELDS[field]
    named = f"{first} (or {' or '.join(others)})" if others else first
    there = ", ".join(row) or "none"
    raise UserError(f"{location}: the field {named} is missing; add it (the row has {there:.200}){hint}")


def _text(row: dict[str, Any], field: str, location: str) -> str:
    name, value = _named(row, field, location)
    if field == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        fix = "write it as text"
        if field == "context":
            fix = "join its passages into one text, with a blank line between them"
        if _MULTIHOP & set(row):
            fix = _CONVERT
        raise UserError(f"{location}: the field {name} must be text, not {type(value).__name__}; {fix}")
    return value


def _answers(row: dict[str, Any], location: str) -> tuple[str, ...]:
    name, value = _named(row, "answer", location)
    answers = value if isinstance(value, list) else [value]
    for answer in answers:
        if not isinstance(answer, str):
            kind = f"text or a list of texts, not {type(answer).__name__}"
            raise UserError(f"{location}: the field {name} must be {kind}; write it as text")
        if not answer.strip():
            raise UserError(f"{location}: the field {name} is empty; fill it or remove the question")
        if _WRITTEN_LIST.fullmatch(answer.strip()):
            raise UserError(
                f"{location}: the field {name} holds a list as text; write the questions as .jsonl with a list"
            )
    return tuple(answers)
