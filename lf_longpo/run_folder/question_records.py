"""The questions of a run with their states and responses, during the run or after it.

Memory holds a few numbers and the byte offsets of each question, and no context. What was appended since the last
reading is read alone.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.config import LongMabConfig, LongMabGenerateConfig
from lf_longpo.data.pairs import PAIRS, may_train
from lf_longpo.data.questions import question_id, question_of, read_questions
from lf_longpo.data.records import Probe, Question, Rollout, names
from lf_longpo.errors import UserError, first_line
from lf_longpo.files.journal import Row, RowsById, row_of_line
from lf_longpo.longmab.rollout_files import PROBES, ROLLOUTS
from lf_longpo.longreward.response_files import FIELDS, NOT_SCORED, SAMPLES, SCORES, Keys, Response, reward_of
from lf_longpo.longreward.scorer import DIMENSIONS
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.run_folder.question_states import QuestionFacts, QuestionState, StateRules, state_of
from lf_longpo.text.answers import pair_reward

# The number of characters of a question and of a reason that lists show.
_TEXT, _REASON = 300, 600
# How a journal's line of a pair begins. Its prompt can have a million characters and is not parsed.
_PAIR = re.compile(rb'\{"id": ("(?:[^"\\]|\\.)*")')


class QuestionLine(NamedTuple):
    """What a list shows of a question."""

    number: int
    """Its position in the run's input, from 1."""
    id: str
    text: str
    """The beginning of the question."""
    state: QuestionState
    reason: str
    """Why it has this state; empty for a pair."""
    responses: int
    """Rollouts or sampled responses."""
    lowest: float | None
    """The lowest reward of the responses that may become a side of a pair."""
    highest: float | None


@dataclass(frozen=True, slots=True)
class QuestionResponse:
    """A rollout or a sampled response."""

    index: int
    """Its round, or the number of the sample; from 0."""
    text: str
    """Without the thought."""
    thought: str
    reward: float | None
    """The reward that selects pairs; None if there is none."""
    usable: bool
    """Whether it may become a side of a pair: it has text and is complete, or the run allows truncated responses."""
    truncated: bool
    round_reward: float | None = None
    """LongMab-PO: the reward that updated the bandit."""
    arms: tuple[int, ...] = ()
    """LongMab-PO: the chunks in its prompt."""
    chunks: int = 0
    """LongMab-PO: the number of chunks of the context."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """LongReward: the judge's scores by dimension; empty if it is not scored."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """LongReward: the judge's details by dimension."""
    not_scored: str = ""
    """LongReward: why racing gave up the response; empty if it did not."""

    @property
    def note(self) -> str:
        """Where it comes from: its round and the chunks in its prompt, or its number and its scores."""
        if self.round_reward is not None:
            return rollout_note(self.index, self.arms)
        scores = (f"{name} {self.scores[name]:.1f}" for name in DIMENSIONS if name in self.scores)
        return " · ".join((f"sample {self.index}", *scores))


def rollout_note(round: int, arms: Iterable[int]) -> str:
    """The round of a rollout and the chunks in its prompt, counted from 1."""
    return f"round {round + 1}, prompt with chunks {', '.join(str(arm + 1) for arm in arms)}"


class QuestionRecords:
    """What the files of a run hold about its questions.

    Args:
        run: the run.
        seen: is called with each rollout (LongMab-PO) or scored response (LongReward) when it is read.
    """

    def __init__(self, run: RunFolder, seen: Callable[[Row], None] = lambda row: None) -> None:
        self.run = run
        self._seen = seen
        self.fault = ""
        """Why the run's input cannot be read; empty if it can."""
        self._facts: dict[str, QuestionFacts] = {}
        self._failures: dict[str, str] = {}
        self._given_up: set[str] = set()
        """The responses whose last row has no reward, by idx."""
        self._pairs_end = 0
        self._inputs_seen = 0
        self._rounds: dict[str, int] = {}  # by question, a bit per round
        self._allow_truncated = run.config.pairs.allow_truncated
        # Read once: a run may have millions of rollouts.
        longmab = run.config.longmab if isinstance(run.config, LongMabGenerateConfig) else LongMabConfig()
        self._most_rounds, self._answer_form = longmab.rounds, longmab.answer_form
        source, keys = Path(run.questions.name), Keys(self._facts)
        # Other formats than .jsonl cannot be read from an offset.
        self._inputs = RowsById(source, (), question_id, self._see_input) if source.suffix == ".jsonl" else None
        self._probes = RowsById(run.path / PROBES, names(Probe), seen=self._see_probe)
        self._rollouts = RowsById(run.path / ROLLOUTS, names(Rollout), seen=self._see_rollout)
        self._samples = RowsById(run.path / SAMPLES, FIELDS[SAMPLES], keys.of_response, self._see_sample)
        self._scores = RowsById(run.path / SCORES, FIELDS[SCORES], keys.of_judged, self._see_score)
        self._reading = threading.Lock()
        self._read = threading.Event()
        self._started = False

    def start(self) -> None:
        """Starts a thread that reads the files for the first time, unless one was started."""
        if not self._started:
            self._started = True
            threading.Thread(target=self.read_on, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Waits until the files were read once, and returns whether they were."""
        return self._read.wait(seconds)

    def read_on(self) -> None:
        """Reads what was appended since the last call. Returns at once if another thread reads."""
        if not self._reading.acquire(blocking=False):
            return
        try:
            self._read_inputs()
            for journal in (self._probes, self._rollouts, self._samples, self._scores):
                journal.read_on()
            self._read_pairs()
            self._read_failures()
        finally:
            self._reading.release()
            self._read.set()

    def lines(self) -> Iterator[QuestionLine]:
        """All questions, in the order of the run's input."""
        rules = self._rules()
        for number, (id, facts) in enumerate(list(self._facts.items()), 1):
            state, reason = state_of(facts, self._failures.get(id), rules)
            shown = facts.responses, facts.lowest, facts.highest
            yield QuestionLine(number, id, facts.text, state, reason, *shown)

    def line(self, id: str) -> QuestionLine | None:
        """One question; None if the run has none with this id."""
        if (facts := self._facts.get(id)) is None:
            return None
        state, reason = state_of(facts, self._failures.get(id), self._rules())
        number = list(self._facts).index(id) + 1
        return QuestionLine(number, id, facts.text, state, reason, facts.responses, facts.lowest, facts.highest)

    def question(self, id: str) -> Question | None:
        """The question with its context; None if it is not in the run's input.

        Raises:
            UserError: the input cannot be read.
        """
        source = self.run.questions
        if self._inputs is not None:
            rows = self._inputs.rows(id)
            return question_of(rows[-1], source.name, False) if rows else None
        return next((question for question in read_questions(source) if question.id == id), None)

    def probe(self, id: str) -> Row | None:
        """The probe of a LongMab-PO question; None if there is none."""
        rows = self._probes.rows(id)
        return rows[-1] if rows else None

    def responses(self, id: str) -> list[QuestionResponse]:
        """The rollouts or responses of a question, in order."""
        if isinstance(self.run.config, LongMabGenerateConfig):
            rows = {row["round"]: row for row in self._rollouts.rows(id)}
            return [self._rollout(id, rows[round]) for round in sorted(rows)]
        samples = [Response.of(row) for row in self._samples.rows(id)]
        scores = {row["idx"]: row for row in self._scores.rows(id)}
        samples += [Response.of(row) for idx, row in scores.items() if idx not in {sample.idx for sample in samples}]
        found = {response.idx: self._response(response, scores.get(response.idx)) for response in samples}
        return sorted(found.values(), key=lambda response: response.index)

    def lost_responses(self, id: str) -> list[tuple[str, str]]:
        """The idx and the reason of each response to a question that failed in the last start."""
        return [(idx, reason) for idx, reason in self._failures.items() if self._question_of(idx) == id != idx]

    def _rules(self) -> StateRules:
        until = str((self.run.summary() or {}).get("stage", "pairs"))
        return StateRules.of(self.run.config, until)

    def _read_inputs(self) -> None:
        source = self.run.questions
        try:
            if self._inputs is not None:
                if not Path(source.name).is_file():
                    raise UserError(f"there is no file {source.name}")
                self._inputs.read_on()
            elif not self._facts:
                for question in read_questions(source):
                    self._add(question)
            self.fault = ""
        except (UserError, OSError) as error:
            self.fault = first_line(error)

    def _see_input(self, id: str, row: Row) -> None:
        source, number = self.run.questions, self._inputs_seen
        self._inputs_seen += 1
        if number >= source.start and (source.end is None or number < source.end):
            with suppress(UserError):  # the run's plan has refused such an input
                self._add(question_of(row, source.name, False))

    def _add(self, question: Question) -> None:
        if question.id not in self._facts:
            self._facts[question.id] = QuestionFacts(question.question[:_TEXT], question.answers)

    def _of(self, id: str, text: str = "") -> QuestionFacts | None:
        """The facts of a question; None if it is not in the input, unless the input cannot be read."""
        if id not in self._facts and self.fault:
            self._facts[id] = QuestionFacts(text[:_TEXT], ())
        return self._facts.get(id)

    def _see_probe(self, id: str, row: Row) -> None:
        if facts := self._of(id):
            facts.probe_kept = bool(row["kept"])

    def _see_rollout(self, id: str, row: Row) -> None:
        self._seen(row)
        round, facts = row["round"], self._of(id)
        known = self._rounds.get(id, 0)
        if facts is None or round >= self._most_rounds or known >> round & 1:
            return
        self._rounds[id] = known | 1 << round
        facts.responses += 1
        facts.add_reward(*self._reward_of_rollout(facts, row))

    def _reward_of_rollout(self, facts: QuestionFacts, row: Row) -> tuple[float, bool]:
        """The pair reward of a rollout, and whether it may become a side of a pair."""
        usable = may_train(row["output"], row.get("truncated") is True, self._allow_truncated)
        if not facts.answers:  # the input cannot be read
            return float(row["reward"]), usable
        return pair_reward(row["output"], facts.answers, self._answer_form), usable

    def _see_sample(self, id: str, row: Row) -> None:
        if facts := self._of(id, str(row["query"])):
            facts.responses += 1
            facts.without_answer += Response.of(row).unfinished_thought

    def _see_score(self, id: str, row: Row) -> None:
        self._seen(row)
        if facts := self._of(id, str(row["query"])):
            response = Response.of(row)
            usable = may_train(response.answer, response.truncated, self._allow_truncated)
            if response.idx in self._given_up:  # racing has considered it again
                self._given_up.remove(response.idx)
                facts.given_up -= 1
                facts.usable -= usable
            if NOT_SCORED in row:
                self._given_up.add(response.idx)
                facts.given_up += 1
                facts.usable += usable
            else:
                facts.add_reward(reward_of(row["scores"]), usable)

    def _read_pairs(self) -> None:
        path = self.run.path / PAIRS
        if not path.is_file():
            return
        if path.stat().st_size < self._pairs_end:
            self._pairs_end = 0
        with path.open("rb") as lines:
            lines.seek(self._pairs_end)
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                self._pairs_end += len(line)
                begin = _PAIR.match(line)
                id = json.loads(begin[1]) if begin else (row_of_line(line, {"id"}) or {}).get("id")
                if isinstance(id, str) and (facts := self._facts.get(id)):  # a further pair has an id of its own
                    facts.has_pair = True

    def _read_failures(self) -> None:
        """Each start removes the failures of earlier starts, so that all are read again."""
        self._failures = {str(row["id"]): str(row["reason"])[:_REASON] for row in self.run.failures()}
        for facts in list(self._facts.values()):
            facts.lost = 0
        for idx in self._failures:
            id = self._question_of(idx)
            if id != idx and (facts_of_question := self._facts.get(id)):
                facts_of_question.lost += 1

    def _question_of(self, idx: str) -> str:
        """The question's id in the id of a failure, which can be that of a response."""
        return idx if idx in self._facts else idx.rpartition("-")[0]

    def _rollout(self, id: str, row: Row) -> QuestionResponse:
        facts = self._facts.get(id) or QuestionFacts("", ())
        reward, usable = self._reward_of_rollout(facts, row)
        truncated, arms = row.get("truncated") is True, tuple(row["arms"])
        thought = str(row.get("thought") or "")
        numbers = float(row["reward"]), arms, len(row["values"])
        return QuestionResponse(row["round"], row["output"], thought, reward, usable, truncated, *numbers)

    def _response(self, response: Response, row: Row | None) -> QuestionResponse:
        usable = row is not None and may_train(response.answer, response.truncated, self._allow_truncated)
        reasons = row.get(NOT_SCORED, {}) if row else {}
        reward = reward_of(row["scores"]) if row and not reasons else None
        judged = {"scores": row["scores"], "details": row.get("details") or {}} if row else {}
        judged["not_scored"] = next(iter(reasons.values()), "")
        text, thought = response.answer, response.thought
        return QuestionResponse(response.number, text, thought, reward, usable, response.truncated, **judged)
