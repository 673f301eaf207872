"""The evidence of a pair's responses: the chunks in the rollout's prompt (LongMab-PO), or the passages that the judge
compared the statements with (LongReward)."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from lf_longpo.config import LongMabGenerateConfig, LongRewardGenerateConfig
from lf_longpo.data.pairs import question_of_pair
from lf_longpo.data.questions import question_id, question_of, read_questions
from lf_longpo.data.records import Rollout, names
from lf_longpo.data.review import SIDES
from lf_longpo.errors import UserError, first_line
from lf_longpo.files.journal import Row, RowsById
from lf_longpo.longmab.rollout_files import ROLLOUTS
from lf_longpo.longreward.response_files import SCORES
from lf_longpo.longreward.scorer import DIMENSIONS
from lf_longpo.models.tokenizer_file import load_tokenizer_file
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.run_folder.question_records import rollout_note
from lf_longpo.text.chunking import chunk_spans, chunk_tokens
from lf_longpo.text.differences import visible

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Seconds that a page waits for a pair's rows in the run's files, and between two looks at them.
_PATIENCE, _LOOK = 0.5, 0.02
# The number of characters by which a context is recognised in a prompt.
_BEGINNING = 100
# The number of characters of a statement and of an analysis that are shown.
_ANALYSIS = 40_000


class Span(NamedTuple):
    """A part of a context that is evidence of one or both responses."""

    start: int
    end: int
    sides: tuple[str, ...]
    """`chosen`, `rejected`, or both."""
    label: str


class Statement(NamedTuple):
    """A statement of a response, and the judge's rating of it."""

    text: str
    support: float
    """From 0 to 1."""
    analysis: str
    passages: list[str]


class DimensionScore(NamedTuple):
    """The judge's score of a response in one dimension."""

    dimension: str
    score: float
    analysis: str


@dataclass(slots=True)
class PairEvidence:
    """What a run's files hold about a pair."""

    context: str | None = None
    """The complete context, before cutting for training; None if the question is no longer in the run's input."""
    spans: list[Span] = field(default_factory=list)
    unmarked: str = ""
    """Why the context has no marks although the run has evidence; empty if it has marks."""
    notes: dict[str, str] = field(default_factory=dict)
    """By side (`chosen`, `rejected`), as the next two."""
    scores: dict[str, list[DimensionScore]] = field(default_factory=dict)
    statements: dict[str, list[Statement]] = field(default_factory=dict)


class EvidenceReader:
    """Finds the evidence of a run's pairs. A thread indexes the run's files, starting at once.

    The evidence of a pair is there as soon as its rows are indexed, long before the end of files of gigabytes.

    Args:
        run: the run.
    """

    def __init__(self, run: RunFolder) -> None:
        self._method = (_LongMab if run.config.method == "longmab" else _LongReward)(run)
        self._lock = threading.Lock()
        self._read = threading.Event()
        threading.Thread(target=self._read_all, daemon=True).start()

    def of(self, pair: Row) -> PairEvidence | None:
        """The evidence of one pair; None while its rows are not indexed."""
        end = time.monotonic() + _PATIENCE
        while not self._read.is_set() and not self._method.has(pair):
            if time.monotonic() > end:
                return None
            self._read.wait(_LOOK)
        with self._lock:
            return self._method.of(pair)

    def _read_all(self) -> None:
        try:
            self._method.read_on()
        finally:
            self._read.set()


class _Contexts:
    """The contexts of a run's questions, from the run's input."""

    def __init__(self, run: RunFolder) -> None:
        self._source = run.questions
        path = Path(self._source.name)
        # Other formats than .jsonl cannot be read from an offset.
        self._rows = RowsById(path, (), question_id) if path.suffix == ".jsonl" else None

    def read_on(self) -> None:
        """Indexes the questions."""
        if self._rows is not None:
            self._rows.read_on()

    def has(self, id: str) -> bool:
        """Whether the question is indexed."""
        return self._rows is not None and bool(self._rows.rows(id))

    def of(self, pair: Row) -> str | None:
        """The context of a pair's question; None if the question is no longer in the input, or has changed."""
        try:
            context = self._of_question(_question(pair))
        except UserError:
            return None
        # A prompt contains the beginning of its context: only the middle is cut.
        return context if context is not None and context[:_BEGINNING] in pair["prompt"] else None

    def _of_question(self, id: str) -> str | None:
        if self._rows is not None:
            rows = self._rows.rows(id)
            return question_of(rows[-1], self._source.name, False).context if rows else None
        return next((question.context for question in read_questions(self._source) if question.id == id), None)


class _LongMab:
    """The evidence of LongMab-PO pairs: the chunks in the prompts of both rollouts."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._contexts = _Contexts(run)
        self._rollouts = RowsById(run.path / ROLLOUTS, names(Rollout))

    def read_on(self) -> None:
        """Indexes the run's files."""
        self._rollouts.read_on()
        self._contexts.read_on()

    def has(self, pair: Row) -> bool:
        """Whether all rows about a pair are indexed."""
        rounds = {row["round"] for row in self._rollouts.rows(_question(pair))}
        return {pair[f"{side}_index"] for side in SIDES} <= rounds and self._contexts.has(_question(pair))

    def of(self, pair: Row) -> PairEvidence:
        evidence = PairEvidence(self._contexts.of(pair))
        self._rollouts.read_on()
        rollouts = {row["round"]: row for row in self._rollouts.rows(_question(pair))}
        rollout_of = {side: rollouts[pair[f"{side}_index"]] for side in SIDES if pair[f"{side}_index"] in rollouts}
        for side, rollout in rollout_of.items():
            evidence.notes[side] = rollout_note(rollout["round"], rollout["arms"])
        if evidence.context is None or not rollout_of:
            return evidence
        try:
            spans = chunks_of_run(self._run, evidence.context, len(next(iter(rollout_of.values()))["values"]))
        except UserError as error:
            evidence.unmarked = first_line(error)
            return evidence
        for arm in sorted({arm for rollout in rollout_of.values() for arm in rollout["arms"]}):
            sides = tuple(side for side, rollout in rollout_of.items() if arm in rollout["arms"])
            start, end = spans[arm]
            evidence.spans.append(Span(start, end, sides, f"chunk {arm + 1}"))
        return evidence


def chunks_of_run(run: RunFolder, context: str, chunks: int) -> list[tuple[int, int]]:
    """The start and end of each chunk in the context of a LongMab-PO question.

    Args:
        run: the run.
        context: of the question.
        chunks: the number of its chunks in the run.

    Raises:
        UserError: the tokenizer cannot be loaded here, or cuts the context in another way than in the run.
    """
    assert isinstance(run.config, LongMabGenerateConfig)
    sizes = run.config.longmab.chunk_size, run.config.longmab.chunk_overlap
    # The file alone first: transformers needs a gigabyte. A few models cut text in another way than their file.
    for tokenizer in (_of_file(run), run.tokenizer):
        if (loaded := tokenizer()) is not None and len(spans := chunk_spans(context, loaded, *sizes)) == chunks:
            return spans
    raise UserError("the tokenizer cuts the context into another number of chunks than it did in the run")


def dimension_scores(details: Mapping[str, Any]) -> list[DimensionScore]:
    """The judge's scores and analyses; published files lack some or all of them.

    Args:
        details: of a scored response, by dimension.
    """
    of_dimension = {name: details[name] for name in DIMENSIONS if isinstance(details.get(name), dict)}
    return [
        DimensionScore(name, row["score"], visible(row.get("analysis") or "", _ANALYSIS))
        for name, row in of_dimension.items()
    ]


def statement_rows(details: Mapping[str, Any]) -> list[Row]:
    """The statements of a scored response as the judge has checked them; empty if there are none."""
    faithfulness = details.get("faithfulness")
    return (faithfulness.get("details") or []) if isinstance(faithfulness, dict) else []


class _LongReward:
    """The evidence of LongReward pairs: scores, analyses, and the passages of both responses' statements."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._contexts = _Contexts(run)
        self._scores = RowsById(run.path / SCORES, ("idx", "scores"), lambda row: _ending(str(row["idx"])))

    def read_on(self) -> None:
        """Indexes the run's files."""
        self._scores.read_on()
        self._contexts.read_on()

    def has(self, pair: Row) -> bool:
        """Whether all rows about a pair are indexed."""
        scored = (self._scores.rows(_ending(f"{_question(pair)}-{pair[f'{side}_index']}")) for side in SIDES)
        return all(scored) and self._contexts.has(_question(pair))

    def of(self, pair: Row) -> PairEvidence:
        evidence = PairEvidence(self._contexts.of(pair))
        self._scores.read_on()
        find = self._passage_finder(evidence.context or "")
        sides_of: dict[tuple[int, int], list[str]] = {}
        checked: dict[str, list[tuple[Row, list[tuple[int, int]]]]] = {}
        for side in SIDES:
            details = self._details(f"{_question(pair)}-{pair[f'{side}_index']}")
            evidence.scores[side] = dimension_scores(details)
            for statement in statement_rows(details):
                found = [find(passage["c_idx"], passage["content"]) for passage in statement.get("evidences") or []]
                spans = [span for span in found if span is not None]
                for span in spans:
                    if side not in sides_of.setdefault(span, []):
                        sides_of[span].append(side)
                checked.setdefault(side, []).append((statement, spans))
        labels = {span: f"passage {number}" for number, span in enumerate(sorted(sides_of), 1)}
        evidence.spans = [Span(*span, tuple(sides_of[span]), label) for span, label in labels.items()]
        evidence.statements = {
            side: [
                Statement(
                    visible(row["fact"], _ANALYSIS),
                    row["score"],
                    visible(row.get("analysis") or "", _ANALYSIS),
                    [labels[span] for span in spans],
                )
                for row, spans in statements
            ]
            for side, statements in checked.items()
        }
        return evidence

    def _details(self, idx: str) -> dict[str, Any]:
        """The judge's details by dimension; published files may lack some or all of them."""
        rows = [row for row in self._scores.rows(_ending(idx)) if f"-{row['idx']}".endswith(f"-{idx}")]
        return (rows[-1].get("details") or {}) if rows else {}

    def _passage_finder(self, context: str) -> Callable[[int, str], tuple[int, int] | None]:
        """Returns a function from a passage's number and text to its start and end in the context."""

        @cache
        def passages() -> list[tuple[int, int]]:
            assert isinstance(self._run.config, LongRewardGenerateConfig)
            try:
                tokenizer = _of_file(self._run)() or self._run.tokenizer()
            except UserError:
                return []
            texts = chunk_tokens(context, tokenizer, self._run.config.longreward.evidence_chunk_size)
            edges = [0, *accumulate(map(len, texts))]
            return [span for span, text in zip(pairwise(edges), texts, strict=True) if text.strip()]

        def find(number: int, text: str) -> tuple[int, int] | None:
            start = context.find(text)
            if start < 0 or not text:
                return None
            if context.find(text, start + 1) >= 0:  # the context has the text twice: the number identifies the passage
                spans = passages()
                if number < len(spans) and context[slice(*spans[number])] == text:
                    return spans[number]
            return start, start + len(text)

        return find


def _question(pair: Row) -> str:
    """The id of a pair's question."""
    return question_of_pair(pair) or pair["id"]


def _of_file(run: RunFolder) -> "Callable[[], PreTrainedTokenizerBase | None]":
    """Returns a function that loads the run's tokenizer from its file; None if it has none."""
    return lambda: cast("PreTrainedTokenizerBase | None", load_tokenizer_file(run.tokenizer_name))


def _ending(idx: str) -> str:
    """The last two parts of a response's idx; a published idx has one more part before them."""
    return "-".join(idx.rsplit("-", 2)[-2:])
