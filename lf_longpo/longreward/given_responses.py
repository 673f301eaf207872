"""Responses that are given in a file instead of sampled: reading, checking and importing them."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.files.faults import AT_ONCE, Faults, parsed
from lf_longpo.files.tables import places_and_rows
from lf_longpo.longreward.response_files import FIELDS, SAMPLES, SCORES, Files, Keys, Response, rows_by_question


@dataclass(frozen=True, slots=True)
class KnownQuestion:
    """A question of the input, as the rows of a run's files must match it."""

    query: str
    sampled: str
    """Digest of the policy's prompt."""
    judged: str
    """Digest of the judge's prompts."""


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
            raise UserError(f"{place}: write an object with idx, query and answer")
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


def check_files(
    output_dir: Path, responses: str | None, questions: Mapping[str, KnownQuestion]
) -> dict[str, list[Response]]:
    """Finds rows, given or left by an earlier start, that were made for other questions than those of the input.

    Args:
        output_dir: the run's folder.
        responses: file or hub data set of given responses, if any.
        questions: the input's questions by id.

    Returns:
        The given responses by question, without their texts (a hash replaces each).

    Raises:
        UserError: there is such a row; a response cannot be read, occurs twice or has changed; or none belongs to a
            question of the input.
    """
    known = _check_journals(output_dir, questions)
    if responses is None:
        return {}
    given: dict[str, list[Response]] = {}
    places: dict[str, str] = {}

    def check(found: tuple[str, Response], place: str) -> tuple[str, Response]:
        id, response = found
        if id in questions:
            _refuse_other_query(place, questions[id].query, response.query)
        if (first := places.setdefault(response.idx, place)) is not place:
            raise UserError(f"{place}: the idx {response.idx!r} is already used in {first}; make it unique")
        if known.get(response.idx, _hash(response.answer)) != _hash(response.answer):
            raise UserError(
                f"{place}: the response {response.idx!r} has changed since the run in {output_dir} began; set another "
                "output_dir"
            )
        return found

    with Faults() as faults:
        for _, (id, response) in parsed(read_responses(responses, questions, faults), check, faults):
            given.setdefault(id, []).append(Response(response.idx, "", _hash(response.answer)))
    if not any(id in questions for id in given):
        raise UserError(
            f"{responses}: no response belongs to a question of the input; an idx is <question's id>-<number>"
        )
    return given


def _check_journals(output_dir: Path, questions: Mapping[str, KnownQuestion]) -> dict[str, str]:
    """Hashes of the responses in a run's folder, by idx; refuses rows of other questions."""
    known: dict[str, str] = {}
    for name in FIELDS:
        for id, row in rows_by_question(output_dir, name, questions):
            if id not in questions:
                continue
            _refuse_other_query(f"{output_dir / name}, idx {row['idx']!r}", questions[id].query, row["query"])
            digest = questions[id].sampled if name == SAMPLES else questions[id].judged
            if row.get("digest", digest) != digest:
                raise UserError(
                    f"question {id!r}, or a prompt of the judge, has changed since the run in {output_dir} began; set "
                    "another output_dir"
                )
            if name == SAMPLES:
                known[row["idx"]] = _hash(Response.of(row).answer)
    return known


def unscored(output_dir: Path, given: Mapping[str, Sequence[Response]]) -> bool:
    """Whether any of the responses that `check_files` returned has no score in the run's folder yet."""
    scored = {(row["idx"], _hash(row["answer"])) for _, row in rows_by_question(output_dir, SCORES, given)}
    return any((response.idx, response.answer) not in scored for each in given.values() for response in each)


def import_responses(files: Files, source: str, ids: Collection[str]) -> None:
    """Writes given responses, which `check_files` has checked, to a run's files."""
    known: dict[str, set[str]] = {}
    for _, (id, response) in read_responses(source, ids):
        if id not in ids:
            continue
        if id not in known:
            known[id] = set(files.responses(id))
        if response.idx not in known[id]:
            files.add_response(response)


def _refuse_other_query(place: str, query: str, found: str) -> None:
    if found and found != query:
        raise UserError(
            f"{place}: its query is not that of its question in the input; use files that belong together, or set "
            "another output_dir"
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
