"""The index of a set of pairs: what lists show, filtered and sorted, and the decisions about the pairs."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from lf_longpo.data.review import PAIR, Decision, pair_digest
from lf_longpo.files.journal import Row, row_of_line
from lf_longpo.longreward.scorer import DIMENSIONS
from lf_longpo.run_folder.pair_sets import PairSet
from lf_longpo.text.differences import whole_letters
from lf_longpo.viewer.index_reader import IndexReader, marks
from lf_longpo.viewer.pair_filter import PairFilter

# The most sources that a filter lists, and the number of characters of a comment that lists show.
_SOURCES, _COMMENT = 50, 200
_PAIRS = (
    "pairs LEFT JOIN decisions USING (digest)"
    " LEFT JOIN scores AS chosen ON chosen.idx = question_id || '-' || chosen_index"
    " LEFT JOIN scores AS rejected ON rejected.idx = question_id || '-' || rejected_index"
)


class PairLine(NamedTuple):
    """What a list shows of a pair."""

    number: int
    """The position in the file, from 1. If the file changes, known pairs keep their numbers; new ones follow."""
    byte_offset: int
    """The offset of its row in the file."""
    digest: str
    id: str
    question: str
    gap: float | None
    chosen_reward: float | None
    rejected_reward: float | None
    chosen_characters: int
    rejected_characters: int
    prompt_characters: int
    language: str
    """Of the question: `en` or `zh`."""
    source: str
    """The row's `source` or `dataset`; empty if it has none."""
    cut: int
    """1 if the middle of its prompt was cut so that it fits the cutoff length, else 0."""
    thinking: int
    """1 if a response begins with a thought, else 0."""
    decision: str | None
    comment: str | None
    reviewer: str | None


class Kinds(NamedTuple):
    """How the pairs of the index differ: a column and a filter without a difference are not shown."""

    languages: list[str]
    sources: list[str]
    """The most frequent ones."""
    cut: bool
    """Whether a prompt is cut."""
    thinking: bool
    """Whether a response has a thought."""
    dimensions: tuple[str, ...]
    """The dimensions of the judge's scores; empty if the pairs have none."""


class PairIndex:
    """The index of a set of pairs.

    Args:
        pairs: the file and its columns.
        decisions: the review decisions so far, by digest.
    """

    def __init__(self, pairs: PairSet, decisions: dict[str, Decision]) -> None:
        self._pair_set = pairs
        self.reader = IndexReader(pairs)
        """Reads the file of pairs."""
        self.decide(decisions)

    def counts(self) -> dict[str, int]:
        """The number of pairs by decision, and of all pairs."""
        with self.reader.open() as db:
            rows = db.execute(
                "SELECT COALESCE(decision, 'undecided'), COUNT(*) FROM pairs LEFT JOIN decisions USING (digest)"
                " GROUP BY 1"
            ).fetchall()
        return {"all": sum(number for _, number in rows), **dict(rows)}

    def kinds(self) -> Kinds:
        """How its pairs differ."""
        with self.reader.open() as db:
            sources: Counter[str] = Counter()
            others = set()
            groups = "SELECT source, language, cut, thinking, COUNT(*) FROM pairs GROUP BY 1, 2, 3, 4"
            for source, language, cut, thinking, number in db.execute(groups):
                sources[source] += number
                others.add((language, cut, thinking))
            scored = db.execute("SELECT 1 FROM scores LIMIT 1").fetchone()
        return Kinds(
            sorted({language for language, _, _ in others}),
            [source for source, _ in sources.most_common(_SOURCES) if source],
            any(cut for _, cut, _ in others),
            any(thinking for _, _, thinking in others),
            DIMENSIONS if scored else (),
        )

    def numbers(self, pair_filter: PairFilter, also: int | None = None) -> list[int]:
        """The numbers of the pairs that pass a filter, in its order.

        Args:
            pair_filter: the filter.
            also: a pair that is included even if it does not pass, at its place in the order.
        """
        conditions, values = pair_filter.conditions()
        with self.reader.open() as db:
            rows = db.execute(
                f"SELECT number FROM {_PAIRS} WHERE ({conditions}) OR number = ? ORDER BY {pair_filter.order}",
                [*values, also],
            )
            return [number for (number,) in rows]

    def numbers_of_question(self, question_id: str) -> list[int]:
        """The numbers of a question's pairs; its first pair, which has the question's id, comes first.

        Empty if it has none, or they are not read yet. Pairs that later ones replaced, as during a run, are not
        included.
        """
        id = whole_letters(question_id)
        with self.reader.open() as db:
            rows = db.execute(
                "SELECT number FROM pairs WHERE question_id = ? AND byte_offset >="
                " (SELECT MAX(byte_offset) FROM pairs WHERE question_id = ? AND id = ?) ORDER BY byte_offset",
                (id, id, id),
            )
            return [number for (number,) in rows]

    def digests(self, pair_filter: PairFilter) -> dict[str, str]:
        """The ids of the pairs that pass a filter, by their digests."""
        conditions, values = pair_filter.conditions()
        with self.reader.open() as db:
            return dict(db.execute(f"SELECT digest, id FROM {_PAIRS} WHERE {conditions} ORDER BY number", values))

    def number_of(self, digest: str) -> int | None:
        """The number of the first pair with a digest; None if there is none."""
        with self.reader.open() as db:
            return db.execute("SELECT MIN(number) FROM pairs WHERE digest = ?", [digest]).fetchone()[0]

    def scores(self, numbers: list[int]) -> dict[int, dict[str, tuple[float, float]]]:
        """The judge's scores of the chosen and the rejected response by dimension, of the pairs that have them."""
        columns = ", ".join(f"chosen.{dimension}, rejected.{dimension}" for dimension in DIMENSIONS)
        with self.reader.open() as db:
            rows = db.execute(f"SELECT number, {columns} FROM {_PAIRS} WHERE number IN ({marks(numbers)})", numbers)
            return {
                number: dict(zip(DIMENSIONS, zip(values[::2], values[1::2], strict=True), strict=True))
                for number, *values in rows
                if None not in values
            }

    def lines(self, numbers: list[int]) -> list[PairLine]:
        """The lines of the pairs with these numbers, in the order of the numbers."""
        columns = ", ".join(PairLine._fields)
        with self.reader.open() as db:
            rows = db.execute(
                f"SELECT {columns} FROM pairs LEFT JOIN decisions USING (digest) WHERE number IN ({marks(numbers)})",
                numbers,
            )
            found = {line.number: line for line in map(PairLine._make, rows)}
        return [found[number] for number in numbers if number in found]

    def row(self, line: PairLine) -> Row | None:
        """The pair of a line; None if the file has changed since it was indexed."""
        if not self._pair_set.path.is_file():
            return None
        with self._pair_set.path.open("rb") as file:
            file.seek(line.byte_offset)
            row = row_of_line(file.readline(), {self._pair_set.columns[name] for name in PAIR})
        return row if row is not None and pair_digest(row, self._pair_set.columns) == line.digest else None

    def decide(self, decisions: Mapping[str, Decision | None]) -> None:
        """Updates the decisions that lists show, by the pair's digest."""
        rows = [
            (digest, decision.verdict, decision.comment[:_COMMENT], decision.reviewer)
            for digest, decision in decisions.items()
            if decision
        ]
        with self.reader.open() as db:
            db.executemany("DELETE FROM decisions WHERE digest = ?", [(digest,) for digest in decisions])
            db.executemany("INSERT INTO decisions VALUES (?, ?, ?, ?)", rows)
