"""The mean of a judge's distribution over its verdicts, from the probabilities of the tokens after the brackets.

The mean is finer than the single verdict that the judge writes, has no ties, and exists even if a small judge writes
no verdict. A verdict may have several tokens (`10` as `1`, `0`; `Fully supported`): each token counts for the verdicts
that it can begin.
"""

from collections.abc import Mapping
from typing import NamedTuple

OPENING, CLOSING = "[[", "]]"


class Shares(NamedTuple):
    """Probabilities of the verdicts, as far as their first tokens determine them."""

    settled: dict[str, float]
    """Probability by verdict."""
    open: dict[str, float]
    """Probability by common beginning of several verdicts."""


def shares(weights: Mapping[str, float], verdicts: Mapping[str, float], begun: str = "") -> Shares:
    """Divides the probabilities of the next texts among the verdicts.

    Args:
        weights: text to probability, of the texts that may follow the brackets and `begun`.
        verdicts: label to value.
        begun: the beginning of the verdict that is already written.
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
        # A tokenizer with a token for the longer verdict (`10`) writes it as that token; then the shorter one is meant.
        if any(label != written and label.startswith(written) and label in found.settled for label in verdicts):
            found.settled[written] = found.settled.get(written, 0.0) + found.open.pop(written)
    return found


def mean(settled: Mapping[str, float], verdicts: Mapping[str, float]) -> float | None:
    """The expected value of the verdict; None if no verdict has any probability."""
    total = sum(settled.values())
    if not total:
        return None
    value = sum(verdicts[label] * share for label, share in settled.items()) / total
    return min(value, max(verdicts.values()))  # rounding errors
