"""The report's sections about questions: how many have each state and why, and the first questions of each state."""

from collections import Counter

from lf_longpo.engine.failures import cause_of
from lf_longpo.report.section import Section
from lf_longpo.run_folder.question_records import QuestionLine, QuestionRecords
from lf_longpo.run_folder.question_states import QuestionState
from lf_longpo.run_folder.shards import SHARDS
from lf_longpo.text.differences import visible

# The number of questions of each state in the table, of reasons of a state, and of characters of a text.
_SHOWN, _REASONS, _TEXT = 10, 3, 200
# States with reasons that differ by question only in their numbers.
_COUNTED = {QuestionState.FAILED, QuestionState.UNFINISHED, QuestionState.TOO_LONG}


def question_sections(records: QuestionRecords) -> list[Section]:
    """The two sections.

    Args:
        records: the run's, read.
    """
    counts: Counter[QuestionState] = Counter()
    reasons: dict[QuestionState, Counter[str]] = {}
    examples: dict[str, str] = {}  # by cause
    first: dict[QuestionState, list[QuestionLine]] = {}
    for line in records.lines():
        counts[line.state] += 1
        if line.state in _COUNTED:
            example = examples.setdefault(cause_of(line.reason), line.reason)
            reasons.setdefault(line.state, Counter())[example] += 1
        if len(listed := first.setdefault(line.state, [])) < _SHOWN:
            listed.append(line)
    return [_states(records, counts, reasons, first), _table(records, counts, first)]


def _states(
    records: QuestionRecords,
    counts: Counter[QuestionState],
    reasons: dict[QuestionState, Counter[str]],
    first: dict[QuestionState, list[QuestionLine]],
) -> Section:
    section = Section("Questions by state")
    if records.fault:
        section.notes.append(f"Questions that were not begun are missing: the input cannot be read ({records.fault}).")
    if records.run.summary() is None and (records.run.path / SHARDS).is_dir():
        section.notes.append("The run works on Ray and is not finished: states are known when it ends.")
    if not counts:
        return section
    section.columns = ["state", "questions", "reasons"]
    for state in filter(counts.get, QuestionState):
        if state in reasons:
            most = reasons[state].most_common(_REASONS)
            listed = [f"{number:,} × {visible(reason, _TEXT)}" for reason, number in most]
            listed += [f"{len(reasons[state]) - _REASONS} other reasons"] * (len(reasons[state]) > _REASONS)
        else:
            listed = [visible(first[state][0].reason, _TEXT)] if state is QuestionState.PROBE_FAILED else []
        section.rows.append([state.value, f"{counts[state]:,}", "\n".join(listed)])
    return section


def _table(
    records: QuestionRecords, counts: Counter[QuestionState], first: dict[QuestionState, list[QuestionLine]]
) -> Section:
    section = Section("Questions")
    if not counts:
        section.notes.append("There are no questions yet.")
        return section
    section.columns = ["question", "responses", "state"]
    for state in filter(counts.get, QuestionState):
        section.rows += [_row(line) for line in first[state]]
        if more := counts[state] - len(first[state]):
            section.rows.append([f"{more:,} more", "", state.value])
    section.notes.append(
        f"The first {_SHOWN} questions of each state. Open all of them, with their responses and contexts: longpo view "
        f"{records.run.path}, then Questions."
    )
    return section


def _row(line: QuestionLine) -> list[str]:
    rewards = ""
    if line.lowest is not None and line.highest is not None:
        rewards = f"\nrewards {line.lowest:.2f} to {line.highest:.2f}"
    reason = f": {visible(line.reason, _TEXT)}" if line.reason else ""
    return [
        f"{visible(line.text, _TEXT)}\n{visible(line.id, 80)}",
        f"{line.responses:,}{rewards}",
        f"{line.state.value}{reason}",
    ]
