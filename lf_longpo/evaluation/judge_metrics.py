"""What the decisions of a judge say about it: agreement with the labels, ties and preferences, with intervals."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lf_longpo.evaluation.intervals import interval_of_mean
from lf_longpo.evaluation.judge_decisions import Decision
from lf_longpo.evaluation.results import Scores, scope

METRICS = ("agreement", "tie", "prefers_longer", "wrongly_longer")
STABLE = "stable"
# Upper ends of the bins of context lengths, in tokens.
_BINS = (1_024, 4_096, 16_384, 32_768, 65_536, 131_072)


def pair_scores(decisions: Sequence[Decision], response_tokens: tuple[int, int], metrics: Sequence[str]) -> Scores:
    """The metrics of one pair; decisions without a readable verdict do not count.

    `agreement` is 1 if the judge prefers the chosen response, 0.5 for a tie. `prefers_longer` is the same for the
    longer response; `wrongly_longer` is `prefers_longer` of pairs with a shorter chosen response. `stable` is 1 if all
    runs decide the same.

    Args:
        decisions: of each run.
        response_tokens: of the chosen and the rejected response.
        metrics: the metrics to return, with those of the decider.
    """
    choices = [decision.choice for decision in decisions if decision.choice is not None]
    agreement = _mean(choices)
    longer = None
    if agreement is not None and response_tokens[0] != response_tokens[1]:
        longer = agreement if response_tokens[0] > response_tokens[1] else 1 - agreement
    scores: Scores = {
        "agreement": agreement,
        "tie": _mean([float(choice == 0.5) for choice in choices]),
        "prefers_longer": longer,
        "wrongly_longer": longer if response_tokens[0] < response_tokens[1] else None,
        STABLE: float(len(set(choices)) == 1) if len(choices) == len(decisions) else None,
    }
    for name in decisions[0].extra:
        values = [decision.extra[name] for decision in decisions]
        scores[name] = _mean([value for value in values if value is not None])
    return {name: scores[name] for name in metrics}


def by_length(rows: Iterable[Mapping[str, Any]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """The means by the length of the context: `from` and `to` in tokens (`to` is null for the last), and a `scope`."""
    bins: dict[int, list[Scores]] = {}
    for row in rows:
        number = sum(row["context_tokens"] > end for end in _BINS)
        bins.setdefault(number, []).append({metric: row[metric] for metric in metrics})
    ends = (0, *_BINS, None)
    return [{"from": ends[i], "to": ends[i + 1], **scope({"": bins[i]}, metrics)} for i in sorted(bins)]


def length_controlled(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The agreement if half of the chosen responses were the longer ones: the mean of both groups' agreements.

    A judge that always prefers the longer response has 0.5, whatever the labels are.

    Returns:
        `agreement`, its `interval`, and the pairs and the agreement of both groups; None if a group is empty.
    """
    longer: list[float] = []
    shorter: list[float] = []
    for row in rows:
        chosen, rejected = row["response_tokens"]
        if row["agreement"] is not None and chosen != rejected:
            (longer if chosen > rejected else shorter).append(row["agreement"])
    if not longer or not shorter:
        return None
    found = interval_of_mean(longer, shorter)
    groups = {
        name: {"questions": len(values), "agreement": sum(values) / len(values)}
        for name, values in (("chosen_longer", longer), ("chosen_shorter", shorter))
    }
    return {"agreement": found.mean, "interval": [found.low, found.high], **groups}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
