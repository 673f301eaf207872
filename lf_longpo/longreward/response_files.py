"""The files of a LongReward run, in the published scripts' form, so that a run of theirs can be carried on here.

A response's `idx` is its question's id, a dash and the number of the sample. Rows of our own carry a `digest` beside
the published fields, which tells whether the question or the prompts have changed since.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.files.faults import AT_ONCE, Faults, parsed
from lf_longpo.files.journal import Journal, Row, read_rows
from lf_longpo.files.tables import places_and_rows
from lf_longpo.longreward.parsing import BEST_RATING
from lf_longpo.longreward.scorer import DIMENSIONS, Score

NOTES, SAMPLES, SCORES = "chunk_info.jsonl", "sampled_responses.jsonl", "scored_responses.jsonl"
_FIELDS = {
    NOTES: ("idx", "query", "info_list"),
    SAMPLES: ("idx", "query", "answer"),
    SCORES: ("idx", "query", "answer", "scores"),
}


# Digits of the largest number of a response; Python refuses to convert more than some thousands.
_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Response:
    """One response to a question."""

    idx: str
    query: str
    answer: str
    truncated: bool = False
    """Whether the answer was cut off at the most tokens it may have."""

    @classmethod
    def of(cls, row: Row) -> "Response":
        """The response that a row is about."""
        return cls(row["idx"], row.get("query", ""), row["answer"], row.get("truncated") is True)

    def row(self) -> Row:
        """The row of it, in the published scripts' form where it is whole."""
        row = {"idx": self.idx, "query": self.query, "answer": self.answer}
        return row | {"truncated": True} if self.truncated else row

    @property
    def number(self) -> int:
        """Which of its question's responses it is; -1 where its idx does not end in a number."""
        number = self.idx.rpartition("-")[2]
        return int(number) if number.isdecimal() and len(number) <= _DIGITS else -1


class Files:
    """The three journals of a run, by question.

    Args:
        output_dir: the run's folder.
        ids: the questions' ids.
    """

    def __init__(self, output_dir: Path, ids: Collection[str]) -> None:
        keys = Keys(ids)
        self._notes = Journal(output_dir / NOTES, _FIELDS[NOTES], keys.notes)
        self._samples = Journal(output_dir / SAMPLES, _FIELDS[SAMPLES], keys.of_response)
        self._scores = Journal(output_dir / SCORES, _FIELDS[SCORES], keys.of_score)

    @property
    def skipped(self) -> int:
        """Lines that were no rows; their work is done again."""
        return self._notes.skipped + self._samples.skipped + self._scores.skipped

    def notes(self, id: str) -> dict[str, str] | None:
        """What was extracted for a question."""
        rows = self._notes.rows(id)
        return rows[-1]["info_list"] if rows else None

    def responses(self, id: str) -> dict[str, Response]:
        """A question's responses by idx, in the order of their numbers."""
        rows = map(Response.of, self._samples.rows(id))
        return {response.idx: response for response in sorted(rows, key=lambda response: response.number)}

    def scores(self, id: str) -> dict[str, Row]:
        """A question's scored responses by idx, with `reward`, which the published files lack."""
        return {row["idx"]: row | {"reward": reward_of(row["scores"])} for row in self._scores.rows(id)}

    def add_notes(self, id: str, query: str, notes: Mapping[str, str], digest: str) -> None:
        """Keeps an extraction."""
        self._notes.append({"idx": id, "query": query, "info_list": dict(notes), "digest": digest})

    def add_response(self, response: Response, digest: str | None = None) -> None:
        """Keeps a response; with the question's digest if it was sampled here."""
        self._samples.append(response.row() | ({"digest": digest} if digest else {}))

    def add_score(self, response: Response, score: Score, digest: str) -> None:
        """Keeps a response's scores, reward and details."""
        scored = {"scores": score.scores, "reward": score.reward, "details": score.details}
        self._scores.append(response.row() | scored | {"digest": digest})

    def close(self) -> None:
        """Closes all three."""
        for journal in (self._notes, self._samples, self._scores):
            journal.close()


class Keys:
    """Which question a row belongs to, by its `idx`; None where the row cannot be used.

    The published scripts write a question's idx as a number, and find a response's question in the last but one part of
    its idx.
    """

    def __init__(self, ids: Collection[str]) -> None:
        self._ids = ids

    def question(self, row: Row) -> str | None:
        """Of a row that stands for a question."""
        idx = row["idx"]
        return str(idx) if isinstance(idx, str | int) and not isinstance(idx, bool) else None

    def notes(self, row: Row) -> str | None:
        """Of a row with what was extracted; one that holds something else cannot be used."""
        notes = row["info_list"]
        usable = isinstance(notes, dict) and all(isinstance(text, str) for text in notes.values())
        return self.question(row) if usable else None

    def of_response(self, row: Row) -> str | None:
        """Of a row that stands for a response."""
        idx = row["idx"]
        if not isinstance(idx, str) or not isinstance(row["answer"], str):
            return None
        head = idx.rpartition("-")[0]
        if head not in self._ids and head.rpartition("-")[2] in self._ids:
            return head.rpartition("-")[2]
        return head or None

    def of_score(self, row: Row) -> str | None:
        """Of a row with scores; one whose ratings are missing or out of range cannot be used."""
        scores = row["scores"]
        usable = isinstance(scores, dict) and all(
            isinstance(scores.get(name), int | float) and 0 <= scores[name] <= BEST_RATING for name in DIMENSIONS
        )
        return self.of_response(row) if usable else None


def look_into(output_dir: Path, name: str, ids: Collection[str]) -> Iterator[tuple[str, Row]]:
    """The rows of one file of a run by question id, from outside; opens nothing for writing."""
    keys = Keys(ids)
    key = {NOTES: keys.notes, SAMPLES: keys.of_response, SCORES: keys.of_score}[name]
    for row in read_rows(output_dir / name, _FIELDS[name], key):
        yield key(row), row


def read_responses(
    source: str, ids: Collection[str], faults: Faults = AT_ONCE
) -> Iterator[tuple[str, tuple[str, Response]]]:
    """Streams responses from a file or hub data set: the place, then the question's id and the response.

    Args:
        source: the file or data set.
        ids: the questions' ids.
        faults: takes the rows that are no responses.

    Raises:
        UserError: the source cannot be read at all.
    """
    keys = Keys(ids)

    def parse(row: Any, place: str) -> tuple[str, Response]:
        if not isinstance(row, dict):
            raise UserError(f"{place}: an object with idx, query and answer is needed")
        for field in ("idx", "answer"):
            if not isinstance(row.get(field), str):
                raise UserError(
                    f"{place}: the field {field} must be text; a response's idx is <question's id>-<number>"
                )
        query = row.get("query", "")
        if not isinstance(query, str):
            raise UserError(f"{place}: the field query must be text, not {type(query).__name__}")
        id = keys.of_response(row)
        if id is None:
            raise UserError(f"{place}: the idx {row['idx']!r} must have the form <question's id>-<number>")
        return id, Response.of(row)

    return parsed(places_and_rows(source, faults=faults), parse, faults)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as the files of a run must have it."""

    query: str
    sampled: str
    """Digest of what the policy is asked."""
    judged: str
    """Digest of what the judge is asked."""


def check_files(output_dir: Path, responses: str | None, asked: Mapping[str, Asked]) -> dict[str, list[Response]]:
    """Finds rows, given or left by an earlier start, that were made for other questions than those of the input.

    Args:
        output_dir: the run's folder.
        responses: file or hub data set of given responses, if any.
        asked: the questions by id.

    Returns:
        The given responses by question, without their texts (a hash stands for each).

    Raises:
        UserError: such a row; a response that cannot be read, stands twice or has changed; or none for any question.
    """
    known: dict[str, str] = {}
    for name in _FIELDS:
        for id, row in look_into(output_dir, name, asked):
            if id not in asked:
                continue
            _refuse_other(f"{output_dir / name}, idx {row['idx']!r}", asked[id].query, row["query"])
            digest = asked[id].sampled if name == SAMPLES else asked[id].judged
            if row.get("digest", digest) != digest:
                raise UserError(
                    f"question {id!r}, or a prompt of the judge, has changed since the run in {output_dir} began; set "
                    "another output_dir"
                )
            if name == SAMPLES:
                known[row["idx"]] = _hash(row["answer"])
    given: dict[str, list[Response]] = {}
    seen: dict[str, str] = {}

    def check(found: tuple[str, Response], place: str) -> tuple[str, Response]:
        id, response = found
        if id in asked:
            _refuse_other(place, asked[id].query, response.query)
        if (first := seen.setdefault(response.idx, place)) is not place:
            raise UserError(f"{place}: the idx {response.idx!r} stands already in {first}; make it unique")
        if known.get(response.idx, _hash(response.answer)) != _hash(response.answer):
            raise UserError(
                f"{place}: the response {response.idx!r} has changed since the run in {output_dir} began; set another "
                "output_dir"
            )
        return found

    with Faults() as faults:
        for _, (id, response) in parsed(read_responses(responses, asked, faults), check, faults) if responses else ():
            given.setdefault(id, []).append(Response(response.idx, "", _hash(response.answer)))
    if responses and not any(id in asked for id in given):
        raise UserError(
            f"{responses}: no response belongs to a question of the input; an idx is <question's id>-<number>"
        )
    return given


def unscored(output_dir: Path, given: Mapping[str, Sequence[Response]]) -> bool:
    """Whether any of the responses that `check_files` gave has no score in a run's folder yet."""
    there = {(row["idx"], _hash(row["answer"])) for _, row in look_into(output_dir, SCORES, given)}
    return any((response.idx, response.answer) not in there for each in given.values() for response in each)


def import_responses(files: Files, source: str, ids: Collection[str]) -> None:
    """Takes given responses, which `check_files` has seen, into a run's files."""
    known: dict[str, set[str]] = {}
    for _, (id, response) in read_responses(source, ids):
        if id not in ids:
            continue
        if id not in known:
            known[id] = set(files.responses(id))
        if response.idx not in known[id]:
            files.add_response(response)


def _refuse_other(place: str, asked: str, query: str) -> None:
    if query and query != asked:
        raise UserError(
            f"{place}: its query is not that of its question in the input; put files together that belong together, "
            "or set another output_dir"
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def reward_of(scores: Mapping[str, float]) -> float:
    """The mean of the four dimensions (arXiv 2410.21252, section 3)."""
    return sum(scores[name] for name in DIMENSIONS) / len(DIMENSIONS)
