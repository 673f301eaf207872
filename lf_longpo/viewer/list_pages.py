"""The list of pairs."""

from starlette.requests import Request
from starlette.responses import Response

from lf_longpo.report.page import REPORT
from lf_longpo.text.differences import visible
from lf_longpo.viewer.pair_filter import STATES, PairFilter
from lf_longpo.viewer.site import Site

# The number of pairs per page of the list.
_PAGE = 50


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
        index.refresh()
        pair_filter = PairFilter.of(request.query_params)
        numbers = index.numbers(pair_filter)
        last = max(1, -(-len(numbers) // _PAGE))
        page = min(max(1, _number_of(request.query_params.get("page"), 1)), last)
        lines = index.lines(numbers[(page - 1) * _PAGE : page * _PAGE])
        return self._site.page(
            "list.html",
            filter=pair_filter,
            query=pair_filter.query,
            lines=[line._replace(id=visible(line.id, 80), question=visible(line.question, 300)) for line in lines],
            found=len(numbers),
            counts=index.counts(),
            whole=index.whole,
            unread=index.fault,
            run_goes_on=bool(run and run.summary() is None),
            states=STATES,
            page=page,
            last=last,
            chosen=len(self._site.reviews.choices()) if run else 0,
            report=bool(run and (run.path / REPORT).is_file()),
        )


def _number_of(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() else default
