"""The journals of a LongReward run, in the form of the published scripts, so that their runs can be resumed here.

A response's `idx` is its question's id, a dash and the number of the sample. Rows that this package writes have a
`digest` next to the published fields; it shows whether the question or the prompts have changed since.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lf_longpo.files.journal import Journal, Row, read_rows
from lf_longpo.longreward.parsing import BEST_RATING
from lf_longpo.longreward.scorer import DIMENSIONS, Score
from lf_longpo.text.thinking import split_thought

NOTES, SAMPLES, SCORES = "chunk_info.jsonl", "sampled_responses.jsonl", "scored_responses.jsonl"
FIELDS = {
    NOTES: ("idx", "query", "info_list"),
    SAMPLES: ("idx", "query", "answer"),
    SCORES: ("idx", "query", "answer", "scores"),
}
"""The fields that a row of each file must have."""

NOT_SCORED = "not_scored"
"""The field of a response that racing gave up: why, by each dimension without a score. Such a row has no reward."""

# The most digits of a response's number; Python refuses to convert more than some thousands.
_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Response:
    """One response to a question."""

    idx: str
    query: str
    answer: str
    truncated: bool = False
    """Whether the answer was cut off at its maximum number of tokens."""
    thought: str = ""
    """The model's thought; not part of the answer. Without an answer, the thought did not end."""

    @classmethod
    def of(cls, row: Row) -> "Response":
        """The response in a row. Rows of other programs may hold the thought in the answer."""
        thought, answer = row.get("thought"), row["answer"]
        if not isinstance(thought, str):
            thought, answer = split_thought(answer)
        return cls(row["idx"], row.get("query", ""), answer, row.get("truncated") is True, thought)

    def row(self) -> Row:
        """The row of the response; a complete response without a thought has the published fields only."""
        row: Row = {"idx": self.idx, "query": self.query, "answer": self.answer}
        if self.truncated:
            row["truncated"] = True
        return row | {"thought": self.thought} if self.thought else row

    @property
    def unfinished_thought(self) -> bool:
        """Whether the model thought and gave no answer."""
        return bool(self.thought) and not self.answer.strip()

    @property
    def number(self) -> int:
        """The number of the response among those to its question; -1 where its idx does not end in a number."""
        number = self.idx.rpartition("-")[2]
        return int(number) if number.isdecimal() and len(number) <= _DIGITS else -1


class Keys:
    """Finds the question of a row by its `idx`; None where the row cannot be used.

    The published scripts write the idx of a question as a number, and find the question of a response in the last but
    one part of its idx.

    Args:
        ids: the questions' ids.
    """

    def __init__(self, ids: Collection[str]) -> None:
        self._ids = ids

    def question(self, row: Row) -> str | None:
        """The id in a row about a question."""
        idx = row["idx"]
        return str(idx) if isinstance(idx, str | int) and not isinstance(idx, bool) else None

    def notes(self, row: Row) -> str | None:
        """The id in a row with notes; None where the notes are not texts."""
        notes = row["info_list"]
        usable = isinstance(notes, dict) and all(isinstance(text, str) for text in notes.values())
        return self.question(row) if usable else None

    def of_response(self, row: Row) -> str | None:
        """The question's id in a row about a response."""
        idx = row["idx"]
        if not isinstance(idx, str) or not isinstance(row["answer"], str):
            return None
        head = idx.rpartition("-")[0]
        if head not in self._ids and head.rpartition("-")[2] in self._ids:
            return head.rpartition("-")[2]
        return head or None

    def of_score(self, row: Row) -> str | None:
        """The question's id in a row with all scores; None where a rating is missing or out of range."""
        return self.of_response(row) if _has_scores(row, DIMENSIONS) else None

    def of_judged(self, row: Row) -> str | None:
        """The question's id in a row with all scores, or with the reason why a score is missing."""
        reasons = row.get(NOT_SCORED, {})
        usable = isinstance(reasons, dict) and _has_scores(row, [name for name in DIMENSIONS if name not in reasons])
        return self.of_response(row) if usable else None

    def of_file(self, name: str) -> Callable[[Row], str | None]:
        """The function that finds the question of a row in one of the files."""
        return {NOTES: self.notes, SAMPLES: self.of_response, SCORES: self.of_judged}[name]


def _has_scores(row: Row, names: Collection[str]) -> bool:
    scores = row["scores"]
    return isinstance(scores, dict) and all(
        isinstance(scores.get(name), int | float) and 0 <= scores[name] <= BEST_RATING for name in names
    )


class Files:
    """The three journals of a run, by question.

    Args:
        output_dir: the run's folder.
        ids: the questions' ids.
    """

    def __init__(self, output_dir: Path, ids: Collection[str]) -> None:
        keys = Keys(ids)
        self._notes, self._samples, self._scores = (
            Journal(output_dir / name, fields, keys.of_file(name)) for name, fields in FIELDS.items()
        )

    @property
    def skipped(self) -> int:
        """Lines that cannot be used; their work is done again."""
        return self._notes.skipped + self._samples.skipped + self._scores.skipped

    def notes(self, id: str) -> dict[str, str] | None:
        """The notes that were extracted for a question."""
        rows = self._notes.rows(id)
        return rows[-1]["info_list"] if rows else None

    def responses(self, id: str) -> dict[str, Response]:
        """A question's responses by idx, in the order of their numbers."""
        rows = map(Response.of, self._samples.rows(id))
        return {response.idx: response for response in sorted(rows, key=lambda response: response.number)}

    def scores(self, id: str) -> dict[str, Row]:
        """A question's scored responses by idx, with `reward`, which the published files lack."""
        return {
            idx: row | {"reward": reward_of(row["scores"])}
            for idx, row in self.judged(id).items()
            if NOT_SCORED not in row
        }

    def judged(self, id: str) -> dict[str, Row]:
        """The last rows about a question's responses by idx: scored ones, and those that racing gave up."""
        return {row["idx"]: row for row in self._scores.rows(id)}

    def all_scored(self, id: str) -> bool:
        """Whether each response of a question has a score, needs none, or has no answer to score."""
        rows = self.judged(id)
        return all(
            response.unfinished_thought or (idx in rows and rows[idx]["answer"] == response.answer)
            for idx, response in self.responses(id).items()
        )

    def add_notes(self, id: str, query: str, notes: Mapping[str, str], digest: str) -> None:
        """Writes the notes of a question."""
        self._notes.append({"idx": id, "query": query, "info_list": dict(notes), "digest": digest})

    def add_response(self, response: Response, digest: str | None = None) -> None:
        """Writes a response; with the question's digest if it was sampled here."""
        self._samples.append(response.row() | ({"digest": digest} if digest else {}))

    def add_score(self, response: Response, score: Score, digest: str) -> None:
        """Writes a response's scores, reward and details."""
        scored: dict[str, Any] = {"scores": score.scores, "reward": score.reward, "details": score.details}
        self._scores.append(response.row() | scored | {"digest": digest})

    def add_given_up(
        self, response: Response, details: Mapping[str, Any], reasons: Mapping[str, str], digest: str
    ) -> None:
        """Writes a response that racing gave up, without a reward.

        Args:
            response: the response.
            details: those of the dimensions that have a score.
            reasons: why each other dimension has none.
            digest: of the question and the prompts.
        """
        scored = {"scores": {name: detail["score"] for name, detail in details.items()}, "details": dict(details)}
        self._scores.append(response.row() | scored | {NOT_SCORED: dict(reasons), "digest": digest})

    def __enter__(self) -> "Files":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for journal in (self._notes, self._samples, self._scores):
            journal.close()


def rows_by_question(output_dir: Path, name: str, ids: Collection[str]) -> Iterator[tuple[str, Row]]:
    """The rows of one file of a run, each with its question's id. Reads the file only.

    Args:
        output_dir: the run's folder.
        name: the file's.
        ids: the questions' ids.
    """
    key = Keys(ids).of_file(name)
    for row in read_rows(output_dir / name, FIELDS[name], key):
        if (id := key(row)) is not None:
            yield id, row


def reward_of(scores: Mapping[str, float]) -> float:
    """The mean of the four dimensions (arXiv 2410.21252, section 3)."""
    return sum(scores[name] for name in DIMENSIONS) / len(DIMENSIONS)
