"""What all pages of the viewer share: the pairs, their index and decisions, the templates, and the headers."""

from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from lf_longpo.data.review import Reviews
from lf_longpo.files.journal import Row
from lf_longpo.report.page import STYLE, templates
from lf_longpo.run_folder.pair_sets import PairSet
from lf_longpo.run_folder.question_records import QuestionRecords
from lf_longpo.viewer.index import PairIndex, PairLine
from lf_longpo.viewer.pair_filter import SORTS

_TEMPLATES = Path(__file__).parent / "templates"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""The headers of every page."""
VERDICTS = {"accept": "accepted", "reject": "rejected", "edit": "edited"}
"""What the pages call a decision."""


class Site:
    """The data and the templates of the pages.

    Args:
        pairs: the set of pairs.
        index: its index.
        reviews: the decisions about its pairs.
    """

    def __init__(self, pairs: PairSet, index: PairIndex, reviews: Reviews) -> None:
        self.pairs = pairs
        self.index = index
        self.reviews = reviews
        self.records = QuestionRecords(pairs.run) if pairs.run else None
        """The questions of the run; None if the run is unknown."""
        if self.records:
            self.records.start()
        environment = templates(_TEMPLATES)
        style = STYLE.read_text(encoding="utf-8") + (_TEMPLATES / "viewer.css").read_text(encoding="utf-8")
        environment.globals |= {"style": style, "name": pairs.name, "verdicts": VERDICTS, "sorts": SORTS}
        environment.globals["has_questions"] = self.records is not None
        self._templates = environment

    def page(self, template: str, **values: Any) -> Response:
        """A page from a template."""
        return HTMLResponse(self._templates.get_template(template).render(**values), headers=HEADERS)

    def line(self, request: Request) -> tuple[PairLine, Row]:
        """The pair that a request's path names: its line of the index, and its row of the file.

        Raises:
            HTTPException: there is no such pair, or the file has changed.
        """
        lines = self.index.lines([request.path_params["number"]])
        if not lines:
            raise HTTPException(404, "There is no pair with this number, or it is not read yet. Try again later.")
        row = self.index.row(lines[0])
        if row is None:
            raise HTTPException(409, "The file has changed. Open the list of pairs to read it again.")
        return lines[0], row
