"""Which responses of a question become pairs. The first pair is the method's own, as published."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from lf_longpo.config import PairsConfig
from lf_longpo.data.records import ScoredResponse
from lf_longpo.text.near_repeats import Wording

ChosenRejected = tuple[ScoredResponse, ScoredResponse]


def choose_pairs(
    responses: Sequence[ScoredResponse], best: int, worst: int, settings: PairsConfig
) -> list[ChosenRejected]:
    """The pairs of a question, each as chosen and rejected response.

    With a larger `per_question`, more pairs follow and none changes.

    Args:
        responses: all responses of the question that may train.
        best: the position of the method's own chosen response; it has the best reward.
        worst: the position of the method's own rejected response; it has the worst reward.
        settings: how many pairs, which ones, and the least reward difference.
    """
    if settings.per_question == 1:
        candidates = iter([(responses[best], responses[worst])])
    else:
        candidates = _candidates(_ranked(responses, best, worst), settings.choose)
    gaps = ((pair, pair[0].reward - pair[1].reward) for pair in candidates)
    return [pair for pair, gap in gaps if gap > 0 and gap >= settings.min_gap][: settings.per_question]


def _ranked(responses: Sequence[ScoredResponse], best: int, worst: int) -> list[ScoredResponse]:
    """The responses without near repeats, best reward first; `best` is the first and `worst` the last."""
    others = [response for position, response in enumerate(responses) if position not in (best, worst)]
    wordings = [Wording.of(responses[best].text), Wording.of(responses[worst].text)]
    kept = []
    for response in sorted(others, key=lambda response: -response.reward):
        wording = Wording.of(response.text)
        if not any(map(wording.repeats, wordings)):
            wordings.append(wording)
            kept.append(response)
    return [responses[best], *kept, responses[worst]]


def _candidates(ranked: Sequence[ScoredResponse], choose: str) -> Iterator[ChosenRejected]:
    last = len(ranked) - 1
    if choose == "all":
        # Of equal differences, those of the outer ranks come first, so that the first pair is best with worst.
        places = sorted(
            combinations(range(len(ranked)), 2),
            key=lambda place: (ranked[place[1]].reward - ranked[place[0]].reward, place[0] + last - place[1], place),
        )
    else:
        places = [(rank, last - rank) for rank in range(len(ranked) // 2)]
    for high, low in places:
        chosen, rejected = ranked[high], ranked[low]
        if choose == "extremes" and (chosen.reward, rejected.reward) != (ranked[0].reward, ranked[-1].reward):
            return
        yield chosen, rejected
