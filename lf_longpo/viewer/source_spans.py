"""Where in its context a response comes from: the chunks that its roll-out was shown (LongMab-PO), or the passages that
its statements were checked against (LongReward)."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from lf_longpo.config import LongMabGenerateConfig, LongRewardGenerateConfig
from lf_longpo.data.questions import question_id, question_of, read_questions
from lf_longpo.data.records import Rollout, names
from lf_longpo.data.review import SIDES
from lf_longpo.errors import UserError
from lf_longpo.files.journal import Row, RowsById
from lf_longpo.longmab.rollout_files import ROLLOUTS
from lf_longpo.longreward.response_files import SCORES
from lf_longpo.longreward.scorer import DIMENSIONS
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.text.chunking import chunk_spans, chunk_tokens

# Seconds that a page waits for the run's files to be read.
_PATIENCE = 2.0
# Characters by which a context is known again.
_BEGINNING = 100


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
            self._method.of({"id": "", "prompt": "", "chosen_index": 0, "rejected_index": 0})
        finally:
            self._read.set()


class _Contexts:
    """The contexts of a run's questions, read from its input again."""

    def __init__(self, run: RunFolder) -> None:
        self._source = run.questions

    def of(self, pair: Row) -> str | None:
        """The context of a pair's question; None where it is not to be had any more, or is another one now."""
        try:
            context = self._of_question(pair["id"])
        except UserError:
            return None
        # Prompts lose the middle of their context only.
        return context if context is not None and context[:_BEGINNING] in pair["prompt"] else None

    def _of_question(self, id: str) -> str | None:
        if self._rows is not None:
            rows = self._rows.rows(id)
            return question_of(rows[-1], self._source.name, False).context if rows else None
        return next((one.context for one in read_questions(self._source) if one.id == id), None)

    @cached_property
    def _rows(self) -> RowsById | None:
        """Where the questions stand; only .jsonl files can be read from the middle."""
        path = Path(self._source.name)
        return RowsById(path, (), question_id) if path.suffix == ".jsonl" else None


class _LongMab:
    """The chunks that both roll-outs were shown."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._contexts = _Contexts(run)

    @cached_property
    def _rollouts(self) -> RowsById:
        return RowsById(self._run.path / ROLLOUTS, names(Rollout))

    def of(self, pair: Row) -> Evidence:
        evidence = Evidence(self._contexts.of(pair))
        arms = {row["round"]: row["arms"] for row in self._rollouts.rows(pair["id"])}
        shown = {side: arms.get(pair[f"{side}_index"], []) for side in SIDES}
        for side, its in shown.items():
            if its:
                chunks = ", ".join(str(arm + 1) for arm in its)
                evidence.notes[side] = f"round {pair[f'{side}_index'] + 1}, saw chunks {chunks}"
        if evidence.context is not None:
            assert isinstance(self._run.config, LongMabGenerateConfig)
            config = self._run.config.longmab
            spans = chunk_spans(evidence.context, self._run.tokenizer(), config.chunk_size, config.chunk_overlap)
            for arm in sorted({arm for its in shown.values() for arm in its if arm < len(spans)}):
                sides = tuple(side for side in SIDES if arm in shown[side])
                evidence.spans.append(Span(*spans[arm], sides, f"chunk {arm + 1}"))
        return evidence


class _LongReward:
    """Scores, analyses, and the passages of both responses' statements."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._contexts = _Contexts(run)

    @cached_property
    def _scores(self) -> RowsById:
        return RowsById(self._run.path / SCORES, ("idx", "scores"), lambda row: _ending(str(row["idx"])))

    def of(self, pair: Row) -> Evidence:
        evidence = Evidence(self._contexts.of(pair))
        passages = self._passages(evidence.context or "")
        sides_of: dict[tuple[int, int], list[str]] = {}
        checked: dict[str, list[tuple[Row, list[tuple[int, int]]]]] = {}
        for side in SIDES:
            details = self._details(f"{pair['id']}-{pair[f'{side}_index']}")
            evidence.judged[side] = [
                Judged(name, details[name]["score"], details[name].get("analysis") or "") for name in details
            ]
            for statement in details.get("faithfulness", {}).get("details") or []:
                places = [passages(one["c_idx"], one["content"]) for one in statement.get("evidences") or []]
                places = [place for place in places if place is not None]
                for place in places:
                    if side not in sides_of.setdefault(place, []):
                        sides_of[place].append(side)
                checked.setdefault(side, []).append((statement, places))
        labels = {span: f"passage {number}" for number, span in enumerate(sorted(sides_of), 1)}
        evidence.spans = [Span(*span, tuple(sides_of[span]), label) for span, label in labels.items()]
        evidence.statements = {
            side: [
                Statement(one["fact"], one["score"], one.get("analysis") or "", [labels[place] for place in places])
                for one, places in its
            ]
            for side, its in checked.items()
        }
        return evidence

    def _details(self, idx: str) -> dict[str, Row]:
        """What the judge said by dimension; published files may lack all or some of it."""
        rows = [row for row in self._scores.rows(_ending(idx)) if f"-{row['idx']}".endswith(f"-{idx}")]
        details = (rows[-1].get("details") or {}) if rows else {}
        return {name: details[name] for name in DIMENSIONS if isinstance(details.get(name), dict)}

    def _passages(self, context: str) -> Callable[[int, str], tuple[int, int] | None]:
        """Tells where a passage stands, by its number and text."""
        assert isinstance(self._run.config, LongRewardGenerateConfig)
        texts = chunk_tokens(context, self._run.tokenizer(), self._run.config.longreward.evidence_chunk_size)
        edges = [0, *accumulate(map(len, texts))]
        spans = [span for span, text in zip(pairwise(edges), texts, strict=True) if text.strip()]

        def place(number: int, text: str) -> tuple[int, int] | None:
            if number < len(spans) and context[slice(*spans[number])] == text:
                return spans[number]
            start = context.find(text)  # cut in another way, by the published code
            return (start, start + len(text)) if start >= 0 and text else None

        return place


def _ending(idx: str) -> str:
    """The last two parts of a response's idx; published ones have another one before them."""
    return "-".join(idx.rsplit("-", 2)[-2:])
