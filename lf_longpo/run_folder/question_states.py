"""The state of each question of a run, from a few numbers about its responses. Reads no files."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lf_longpo.config import GenerateConfig, LongMabGenerateConfig, LongRewardGenerateConfig
from lf_longpo.data.pairs import UNFIT

# A pair has two sides.
_SIDES = 2


class QuestionState(StrEnum):
    """What became of a question. The value is its name on pages, in the order in which they list the states."""

    PAIR = "pair"
    NO_REWARD_DIFFERENCE = "no reward difference"
    PROBE_FAILED = "probe failed"
    TRUNCATED = "too few complete responses"
    TOO_FEW_RESPONSES = "too few responses"
    TOO_LONG = "too long for cutoff_len"
    FAILED = "failed"
    UNFINISHED = "unfinished"


@dataclass(slots=True)
class QuestionFacts:
    """What the journals of a run hold about one question, in a few numbers."""

    text: str
    """The beginning of the question."""
    answers: tuple[str, ...]
    """The gold answers."""
    probe_kept: bool | None = None
    """LongMab-PO: whether the probe has the gold answer; None if there is no probe yet."""
    responses: int = 0
    """Rollouts or sampled responses."""
    scored: int = 0
    """Responses with a reward."""
    without_answer: int = 0
    """Responses that get no reward, because their thought did not end."""
    lost: int = 0
    """Responses that failed in the last start."""
    given_up: int = 0
    """Responses without a reward, because racing found that they cannot be a side of a pair."""
    usable: int = 0
    """Complete responses, with a reward or given up."""
    lowest: float | None = None
    """The lowest pair reward of the usable responses."""
    highest: float | None = None
    has_pair: bool = False
    """Whether the run's journal has a pair of the question, also one from an earlier start."""

    def add_reward(self, reward: float, usable: bool) -> None:
        """Counts a response with a reward."""
        self.scored += 1
        if usable:
            self.usable += 1
            self.lowest = reward if self.lowest is None else min(self.lowest, reward)
            self.highest = reward if self.highest is None else max(self.highest, reward)


class StateRules(NamedTuple):
    """The settings of a run that decide the states of its questions."""

    responses: int | None
    """Responses of each question; None if they are given."""
    least: int
    """Complete responses that a pair needs."""
    min_gap: float
    """The least reward difference of a pair."""
    has_probes: bool
    stop: float | None
    """`longmab.stop`: a question with a pair of this reward difference may have fewer responses."""
    until: str
    """The stage after which the last start ended; `pairs` while it is unknown."""

    @classmethod
    def of(cls, config: GenerateConfig, until: str) -> "StateRules":
        """The rules of a run.

        Args:
            config: the run's.
            until: see `StateRules.until`.
        """
        if isinstance(config, LongMabGenerateConfig):
            return cls(config.longmab.rounds, _SIDES, config.pairs.min_gap, True, config.longmab.stop, until)
        assert isinstance(config, LongRewardGenerateConfig)
        samples = None if config.responses else config.longreward.num_samples
        return cls(samples, config.longreward.min_responses, config.pairs.min_gap, False, None, until)


def state_of(facts: QuestionFacts, failure: str | None, rules: StateRules) -> tuple[QuestionState, str]:
    """The state of a question and its reason; the reason of a pair is empty.

    A pair of an earlier start counts only if the responses still give one.

    Args:
        facts: about the question.
        failure: why the question failed in the last start; None if it did not.
        rules: of the run.
    """
    if failure and failure.startswith(UNFIT):
        return QuestionState.TOO_LONG, failure
    gap = (facts.highest or 0.0) - (facts.lowest or 0.0)
    differs = facts.usable >= rules.least and gap > 0 and gap >= rules.min_gap
    if facts.has_pair and differs:
        return QuestionState.PAIR, ""
    if failure:
        return QuestionState.FAILED, failure
    if rules.has_probes and facts.probe_kept is False:
        return QuestionState.PROBE_FAILED, "the probe does not give the gold answer, although the prompt has it"
    stopped = rules.stop is not None and differs and gap >= rules.stop
    if not stopped and (unfinished := _unfinished(facts, rules)):
        return QuestionState.UNFINISHED, unfinished
    if differs:
        later = "a later stage makes the pair" if rules.until != "pairs" else "the pair is not made yet"
        return QuestionState.UNFINISHED, later
    if facts.responses < rules.least and rules.responses is None:
        return QuestionState.TOO_FEW_RESPONSES, f"{facts.responses} given; a pair needs {rules.least}"
    if facts.usable < rules.least:
        complete = f"{facts.usable} of {facts.responses} responses are complete"
        return QuestionState.TRUNCATED, f"{complete}; a pair needs {rules.least}"
    reason = f"all {facts.usable} complete responses have the reward {facts.highest:g}"
    if gap:
        reason = f"the largest difference is {gap:g}, below pairs.min_gap ({rules.min_gap:g})"
    return QuestionState.NO_REWARD_DIFFERENCE, reason


def _unfinished(facts: QuestionFacts, rules: StateRules) -> str:
    """What a question lacks before its pair can be made; empty if it lacks nothing."""
    wanted = facts.responses if rules.responses is None else rules.responses
    if not (facts.responses or facts.lost or facts.probe_kept):
        return "" if rules.responses is None else "not begun"
    if rules.has_probes:
        return f"{facts.responses} of {wanted} rounds" if facts.responses < wanted else ""
    if facts.scored + facts.given_up + facts.without_answer + facts.lost < wanted:
        return f"{facts.scored} of {wanted} responses have a score"
    return ""
