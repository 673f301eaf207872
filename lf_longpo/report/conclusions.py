"""The sentences at the top of a report: what happened in a run, and what to do. Each rule is a pure function of counts.

A rule returns a sentence, or None if it has nothing to say. `within chance` means a two-sided sign test (Conover 1999,
section 3.4) with a p-value of `SIGNIFICANT` or more; ties do not count. The sign test is exact for few questions and
assumes no distribution.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

State = Literal["finished", "interrupted", "running"]
Trend = Literal["rises", "falls", "unclear", "flat"]

SIGNIFICANT = 0.05
"""The usual level: among runs without an effect, one of twenty is reported as beyond chance."""
MANY = 0.25
"""The share of questions that a cause must cost to get a sentence. Fewer are in the table of facts."""
MOST = 0.5
"""The share of rewards that makes questions too hard (all are 0) or too easy (all are the best reward)."""
SEPARATED = 0.75
"""The share of pairs in which the same side is longer. From here on, a model that knows only lengths is right in three
of four pairs."""
MOST_SENTENCES = 6
"""More sentences would not be read."""


def beyond_chance(more: int, fewer: int) -> bool:
    """Whether a sign test rejects that both directions are equally likely."""
    from scipy.stats import binomtest

    return more + fewer > 0 and float(binomtest(more, more + fewer).pvalue) < SIGNIFICANT


def directions(differences: Iterable[float]) -> tuple[int, int]:
    """How many differences are above and below 0; ties do not count."""
    values = list(differences)
    return sum(value > 0 for value in values), sum(value < 0 for value in values)


def outcome(state: State, stage: str, questions: int, with_pair: int, pairs: int, unfinished: int) -> str:
    """How the run ended, and how many questions gave a pair.

    Args:
        state: of the run.
        stage: the last stage of a finished run.
        questions: of the run; 0 if unknown, as during a run.
        with_pair: questions that have pairs.
        pairs: made so far; a question can have several.
        unfinished: questions that are not finished.
    """
    if state == "running":
        so_far = f"It has {_count(pairs, 'pair')} so far."
        return f"This run is not finished: it is still running, or it was stopped. {so_far}"
    made = f"{with_pair:,} of {_count(questions, 'question')} gave a pair"
    if pairs > with_pair:
        made += f", {pairs:,} pairs in all"
    if state == "interrupted":
        return f"This run was stopped with {_count(unfinished, 'unfinished question')}; {made}."
    if stage != "pairs":
        return f"This run is finished, up to the stage {stage}: pairs are made in a later stage."
    return f"This run is finished: {made}."


def failures(failed: int, questions: int, causes: Mapping[str, int]) -> str | None:
    """The most frequent cause of failures. Every failure counts, because it costs a question.

    Args:
        failed: questions.
        questions: of the run; 0 if unknown.
        causes: failures by cause.
    """
    if not failed:
        return None
    cause = max(causes, key=lambda name: causes[name], default="the cause is unknown")
    several = f" (the most frequent of {len(causes)} causes)" if len(causes) > 1 else ""
    total = f"{failed:,} of {_count(questions, 'question')}" if questions else _count(failed, "question")
    return f"{total} failed: {cause.rstrip('.')}{several}. Fix the cause and run the same command again."


def failed_probes(failed: int, questions: int) -> str | None:
    """Questions that were skipped because the policy cannot use the gold answer."""
    if failed < MANY * questions or not failed:
        return None
    return (
        f"The probe failed for {failed:,} of {_count(questions, 'question')}: the policy does not repeat the gold "
        "answer when it is given. Check the gold answers, or set a stronger policy."
    )


def no_difference(
    equal: int, questions: int, lowest: float, best: float, raise_settings: str, min_gap: float = 0.0
) -> str | None:
    """Questions with responses of equal reward, and what gives them different rewards.

    Args:
        equal: questions without a reward difference.
        questions: of the run.
        lowest: the share of rewards that are 0.
        best: the share of rewards that are the best reward.
        raise_settings: the settings that make responses differ more.
        min_gap: the least reward difference of a pair; 0 for any.
    """
    if equal < MANY * questions or not equal:
        return None
    found = f"{equal:,} of {_count(questions, 'question')} had no reward difference"
    if min_gap:
        found += f" of {min_gap:g} (pairs.min_gap) or more"
    if lowest >= MOST:
        return (
            f"{found}, and {lowest:.0%} of the responses got the reward 0: use easier questions or a stronger policy, "
            f"or raise {raise_settings}."
        )
    harder = "use harder questions, or " if best >= MOST else ""
    end = "" if best >= MOST else ", or use harder questions"
    return f"{found}: {harder}raise {raise_settings}{end}."


def trend_of(differences: Sequence[float]) -> Trend:
    """Whether rewards change over the rounds, by a sign test over questions. The mean must change in the same way.

    A question gives one sign, whatever its number of rounds: its rounds depend on each other, because each one learns
    from the rewards before it. Questions count as independent; those about one document are less so.

    Args:
        differences: by question, its mean reward in the last third of the rounds minus that in the first third.
    """
    more, fewer = directions(differences)
    if more + fewer == 0:
        return "flat"
    if not beyond_chance(more, fewer) or (more > fewer) != (sum(differences) > 0):
        return "unclear"
    return "rises" if more > fewer else "falls"


def reward_trend(differences: Sequence[float], first: float, last: float) -> str | None:
    """What the bandit gained over the rounds.

    Args:
        differences: see `trend_of`.
        first: the mean reward in the first third of the rounds.
        last: that in the last third.
    """
    if not differences:
        return None
    trend = trend_of(differences)
    more, fewer = directions(differences)
    if trend == "flat":
        return (
            f"The reward does not change over the rounds ({first:.3f} in the first and {last:.3f} in the last third)."
        )
    word = "rises" if last > first else "falls"
    change = (
        f"The reward {word} over the rounds from {first:.3f} to {last:.3f}, {{}} chance (higher in {more:,} and lower "
        f"in {_count(fewer, 'question')})"
    )
    if trend == "unclear":
        return f"{change.format('within')}: more questions would show whether the bandit learns."
    if trend == "rises":
        return f"{change.format('beyond')}: later rounds choose better chunks."
    return (
        f"{change.format('beyond')}: later rounds choose worse chunks. Check that the embedder fits the language of "
        "the texts, or change longmab.chunk_size."
    )


def length_bias(longer: int, shorter: int, equal: int) -> str | None:
    """Whether length separates chosen from rejected responses.

    Args:
        longer: pairs with a longer chosen response.
        shorter: pairs with a shorter chosen response.
        equal: pairs with responses of equal length.
    """
    pairs = longer + shorter + equal
    if not pairs:
        return None
    most, word = max((longer, "longer"), (shorter, "shorter"))
    counted = f"The chosen response is {word} than the rejected one in {most:,} of {_count(pairs, 'pair')}"
    if most >= SEPARATED * pairs and beyond_chance(longer, shorter):
        return (
            f"{counted}: length alone separates them. A model can learn to write {word} responses instead of better "
            "ones. Read the pairs below, and reject those without another difference."
        )
    chance = "beyond" if beyond_chance(longer, shorter) else "within"
    return f"{counted}, {chance} chance: length alone does not separate them."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
