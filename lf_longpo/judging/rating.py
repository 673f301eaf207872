"""The mean of a judge's distribution over its verdicts, from the probabilities of the tokens behind the brackets.

Finer than the one verdict that the judge would write, without ties, and there even where a small judge would write
none. A verdict may be several tokens (`10` as `1`, `0`; `Fully supported`); what counts is with which verdicts a token
agrees.
"""

from collections.abc import Mapping
from typing import NamedTuple

OPENING, CLOSING = "[[", "]]"


class Shares(NamedTuple):
    """How probable each verdict is, as far as the first tokens tell."""

    settled: dict[str, float]
    """By verdict."""
    open: dict[str, float]
    """By beginning that several verdicts share."""


def shares(weights: Mapping[str, float], verdicts: Mapping[str, float], begun: str = "") -> Shares:
    """Divides the probabilities of what may come next among the verdicts.

    Args:
        weights: text to probability, for what may stand behind the brackets and `begun`.
        verdicts: label to value.
        begun: how the verdict was begun already.
    """
    found = Shares({}, {})
    for text, weight in weights.items():
        written = (begun + text).lstrip()
        agreeing = [
            label
            for label in verdicts
            if written and ((label + CLOSING).startswith(written) or written.startswith(label + CLOSING[0]))
        ]
        if len(agreeing) == 1:
            found.settled[agreeing[0]] = found.settled.get(agreeing[0], 0.0) + weight
        elif agreeing:
            found.open[written] = found.open.get(written, 0.0) + weight
    for written in [written for written in found.open if written in verdicts]:
        # A tokenizer that has a token for the longer verdict (`10`) writes it in one go; the shorter one is meant then.
        if any(label != written and label.startswith(written) and label in found.settled for label in verdicts):
            found.settled[written] = found.settled.get(written, 0.0) + found.open.pop(written)
    return found


def mean(settled: Mapping[str, float], verdicts: Mapping[str, float]) -> float | None:
    """The expected value of a verdict; None where no probability fell on any."""
    total = sum(settled.values())
    if not total:
        return None
    value = sum(verdicts[label] * share for label, share in settled.items()) / total
    return min(value, max(verdicts.values()))  # rounding
