"""Where in its context a response comes from: the chunks that its roll-out was shown (LongMab-PO), or the passages that
its statements were checked against (LongReward)."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from lf_longpo.errors import UserError
from lf_longpo.journal import Row, RowsById
from lf_longpo.longmab.method import ROLLOUTS
from lf_longpo.longreward.files import SCORES
from lf_longpo.longreward.scorer import DIMENSIONS
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.questions import FIELDS, Source, question_of, read_questions
from lf_longpo.records import Rollout, names
from lf_longpo.report.run_folder import RunFolder
from lf_longpo.text.chunking import chunk_sentences

SIDES = "chosen", "rejected"
# Seconds that a page waits for the run's files to be read.
_PATIENCE = 2.0


class Span(NamedTuple):
    """A part of a context that one side or both rest on."""

    start: int
    end: int
    sides: tuple[str, ...]
    label: str


class Statement(NamedTuple):
    """A statement of a response, as the judge checked it."""

    text: str
    support: float
    """From 0 to 1."""
    analysis: str
    passages: list[str]


class Judged(NamedTuple):
    """What the judge said about one dimension of a response."""

    dimension: str
    score: float
    analysis: str


@dataclass(slots=True)
class Evidence:
    """What a run knows about a pair."""

    context: str | None = None
    """As it was before anything was cut off for training; None where the question is not to be had any more."""
    spans: list[Span] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    """By side."""
    judged: dict[str, list[Judged]] = field(default_factory=dict)
    statements: dict[str, list[Statement]] = field(default_factory=dict)


class Witness:
    """Knows what the responses of a run rest on.

    Finding things in a run's files takes reading them once; a thread of its own begins with that at once.

    Args:
        run: the run.
    """

    def __init__(self, run: RunFolder) -> None:
        self._method = (_LongMab if run.config.method == "longmab" else _LongReward)(run)
        self._lock = threading.Lock()
        self._read = threading.Event()
        threading.Thread(target=self._read_all, daemon=True).start()

    def of(self, pair: Row) -> Evidence | None:
        """The evidence of one pair; None while the run's files are still being read."""
        if not self._read.wait(_PATIENCE):
            return None
        with self._lock:
            return self._method.of(pair)

    def _read_all(self) -> None:
        try:
            self._method.of({"id": "", "chosen_index": 0, "rejected_index": 0})
        finally:
            self._read.set()


class _Contexts:
    """The contexts of a run's questions, read from its input again."""

    def __init__(self, run: RunFolder) -> None:
        config = run.config
        self._source = Source(config.input, config.input_split, False, config.start, config.end)

    def of(self, id: str) -> str | None:
        """The context of a question; None where it is not to be had any more."""
        try:
            if self._rows is not None:
                rows = self._rows.rows(id)
                return question_of(rows[-1], self._source.name, False).context if rows else None
            return next((one.context for one in read_questions(self._source) if one.id == id), None)
        except UserError:
            return None

    @cached_property
    def _rows(self) -> RowsById | None:
        """Where the questions stand; only .jsonl files can be read from the middle."""
        path = Path(self._source.name)
        return RowsById(path, (), _question_id) if path.suffix == ".jsonl" else None


def _question_id(row: Row) -> str | None:
    id = next((row[name] for name in FIELDS["id"] if row.get(name) is not None), None)
    return None if id is None else str(id)


class _LongMab:
    """The chunks that both roll-outs were shown."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._contexts = _Contexts(run)

    @cached_property
    def _rollouts(self) -> RowsById:
        return RowsById(self._run.path / ROLLOUTS, names(Rollout))

    def of(self, pair: Row) -> Evidence:
        evidence = Evidence(self._contexts.of(pair["id"]))
        arms = {row["round"]: row["arms"] for row in self._rollouts.rows(pair["id"])}
        shown = {side: arms.get(pair[f"{side}_index"], []) for side in SIDES}
        for side, its in shown.items():
            if its:
                chunks = ", ".join(str(arm + 1) for arm in its)
                evidence.notes[side] = f"round {pair[f'{side}_index'] + 1}, saw chunks {chunks}"
        if evidence.context is not None:
            spans = list(self._chunks(evidence.context))
            for arm in sorted({arm for its in shown.values() for arm in its if arm < len(spans)}):
                sides = tuple(side for side in SIDES if arm in shown[side])
                evidence.spans.append(Span(*spans[arm], sides, f"chunk {arm + 1}"))
        return evidence

    def _chunks(self, context: str) -> Iterator[tuple[int, int]]:
        config = self._run.config
        tokenizer = load_tokenizer(
            config.tokenizer or config.policy.model, "tokenizer", config.policy.trust_remote_code
        )
        start = 0
        for chunk in chunk_sentences(context, tokenizer, config.longmab.chunk_size, config.longmab.chunk_overlap):
            start = context.index(chunk, start)
            yield start, start + len(chunk)
            start += 1  # chunks overlap


class _LongReward:
    """Scores, analyses, and the passages of both responses' statements."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._contexts = _Contexts(run)

    @cached_property
    def _scores(self) -> RowsById:
        fields = ("idx", "scores", "details")
        return RowsById(self._run.path / SCORES, fields, lambda row: str(row["idx"]))

    def of(self, pair: Row) -> Evidence:
        evidence = Evidence(self._contexts.of(pair["id"]))
        context = evidence.context or ""
        sides_of: dict[tuple[int, int], list[str]] = {}
        found: dict[str, list[tuple[Mapping[str, object], list[tuple[int, int]]]]] = {}
        for side in SIDES:
            rows = self._scores.rows(f"{pair['id']}-{pair[f'{side}_index']}")
            details = rows[-1]["details"] if rows else {}
            evidence.judged[side] = [
                Judged(name, details[name]["score"], details[name].get("analysis", ""))
                for name in DIMENSIONS
                if name in details
            ]
            for checked in details.get("faithfulness", {}).get("details", []):
                places = []
                for passage in checked.get("evidences", []):
                    start = context.find(passage["content"])
                    if start >= 0:
                        span = start, start + len(passage["content"])
                        places.append(span)
                        if side not in sides_of.setdefault(span, []):
                            sides_of[span].append(side)
                found.setdefault(side, []).append((checked, places))
        labels = {span: f"passage {number}" for number, span in enumerate(sorted(sides_of), 1)}
        evidence.spans = [Span(*span, tuple(sides_of[span]), label) for span, label in labels.items()]
        evidence.statements = {
            side: [
                Statement(one["fact"], one["score"], one.get("analysis", ""), [labels[span] for span in places])
                for one, places in its
            ]
            for side, its in found.items()
        }
        return evidence
