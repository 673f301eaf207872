"""The list of pairs, and what comes after its last pair."""

from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from lf_longpo.report.page import REPORT
from lf_longpo.text.differences import visible
from lf_longpo.viewer.index import Kinds, PairLine
from lf_longpo.viewer.next_command import register_command
from lf_longpo.viewer.paging import page_of
from lf_longpo.viewer.pair_filter import PROMPTS, STATES, THINKING, PairFilter
from lf_longpo.viewer.site import Site

# Columns that a first click sorts in ascending order; the others begin with the largest value.
_ASCENDING = ("number", "language", "source", "decision")


class Head(NamedTuple):
    """The head of a column."""

    name: str
    label: str
    query: str
    """Of the list that is sorted by the column; the other direction if it is sorted by it already."""
    sorted: str
    """`ascending`, `descending`, or empty."""


class ListPages:
    """The handlers of the list.

    Args:
        site: what all pages share.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def list_page(self, request: Request) -> Response:
        """The list of the pairs that pass the request's filter."""
        index, run = self._site.index, self._site.pairs.run
        index.reader.refresh()
        pair_filter = PairFilter.of(request.query_params)
        numbers = index.numbers(pair_filter)
        page = page_of(request, len(numbers))
        shown = numbers[page.shown]
        kinds = index.kinds()
        return self._site.page(
            "list.html",
            filter=pair_filter,
            query=pair_filter.query,
            lines=[_shown(line) for line in index.lines(shown)],
            scores=index.scores(shown) if kinds.dimensions else {},
            kinds=kinds,
            heads=_heads(pair_filter, kinds),
            found=len(numbers),
            whole=index.reader.whole,
            unread=index.reader.fault,
            run_goes_on=bool(run and run.summary() is None),
            states=STATES,
            prompts=PROMPTS,
            thinking=THINKING,
            page=page.number,
            last=page.last,
            chosen=len(self._site.reviews.choices()) if run else 0,
            report=bool(run and (run.path / REPORT).is_file()),
            banner=self._site.banner(request),
            **self._progress(pair_filter),
        )

    def end_page(self, request: Request) -> Response:
        """What comes after the last pair of a list."""
        pair_filter = PairFilter.of(request.query_params)
        return self._site.page(
            "end.html",
            query=pair_filter.query,
            banner=self._site.banner(request),
            found=len(self._site.index.numbers(pair_filter)),
            **self._progress(pair_filter),
        )

    def _progress(self, pair_filter: PairFilter) -> dict[str, Any]:
        """How many pairs are decided, where to continue, and the command that uses the decisions."""
        counts = self._site.index.counts()
        in_list = self._site.index.numbers(pair_filter._replace(state="undecided"))
        everywhere = in_list or self._site.index.numbers(PairFilter(state="undecided"))
        return {
            "counts": counts,
            "undecided_in_list": len(in_list) if pair_filter.state in ("all", "undecided") else 0,
            "first_undecided": everywhere[0] if everywhere else None,
            "register": register_command(self._site.pairs, False),
            "register_accepted": register_command(self._site.pairs, True) if everywhere else "",
        }


def _heads(pair_filter: PairFilter, kinds: Kinds) -> list[Head]:
    """The columns that the pairs of the index have values for."""
    labels = {"number": "#", "question": "question", "gap": "reward gap", "rewards": "rewards"}
    labels |= {dimension: dimension for dimension in kinds.dimensions}
    labels |= {"characters": "characters", "ratio": "length ratio", "prompt": "prompt characters"}
    labels |= {"cut": "cut"} if kinds.cut else {}
    labels |= {"thinking": "thinking"} if kinds.thinking else {}
    labels |= {"language": "language"} if len(kinds.languages) > 1 else {}
    labels |= {"source": "source"} if kinds.sources else {}
    labels["decision"] = "decision"
    return [_head(name, label, pair_filter) for name, label in labels.items()]


def _head(name: str, label: str, pair_filter: PairFilter) -> Head:
    if name in ("question", "rewards", "characters"):
        return Head(name, label, "", "")
    column, _, direction = pair_filter.sort.rpartition("_")
    first = "up" if name in _ASCENDING else "down"
    following = {"up": "down", "down": "up"}[direction] if column == name else first
    state = {"up": "ascending", "down": "descending"}[direction] if column == name else ""
    return Head(name, label, pair_filter._replace(sort=f"{name}_{following}").query, state)


def _shown(line: PairLine) -> PairLine:
    return line._replace(
        id=visible(line.id, 80),
        question=visible(line.question, 300),
        source=visible(line.source, 80),
        comment=visible(line.comment or "", 200),
        reviewer=visible(line.reviewer or "", 80),
    )
