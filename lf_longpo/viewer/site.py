"""What all pages of the viewer share: the pairs, their index and decisions, the templates, and the headers."""

import base64
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from lf_longpo.data.review import Reviews
from lf_longpo.files.journal import Row
from lf_longpo.report.page import STYLE, templates
from lf_longpo.run_folder.pair_sets import PairSet
from lf_longpo.run_folder.question_records import QuestionRecords
from lf_longpo.viewer.error_pages import ErrorPages
from lf_longpo.viewer.index import PairIndex, PairLine
from lf_longpo.viewer.markdown import markdown_html
from lf_longpo.viewer.search_hits import find_hits

_TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = (_TEMPLATES / "viewer.js").read_text(encoding="utf-8")
"""The only script of the pages. Browsers run no other one, because its hash is in the policy."""
_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_HASH}'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""The headers of every page."""
VERDICTS = {"accept": "accepted", "reject": "rejected", "edit": "edited"}
"""What the pages call a decision."""


class Banner(NamedTuple):
    """What the last request changed."""

    text: str
    change: str
    """The name of the change, to undo it; empty if it was an undo."""


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
        """The questions of the run, read when a page about questions is opened first; None if the run is unknown."""
        environment = templates(_TEMPLATES)
        style = STYLE.read_text(encoding="utf-8") + (_TEMPLATES / "viewer.css").read_text(encoding="utf-8")
        environment.globals |= {"style": style, "name": pairs.name, "verdicts": VERDICTS, "script": SCRIPT}
        environment.globals["has_questions"] = self.records is not None
        environment.filters |= {"hits": find_hits, "markdown": markdown_html}
        self._templates = environment
        self.errors = ErrorPages(environment, HEADERS)
        """The pages of errors."""

    def page(self, template: str, **values: Any) -> Response:
        """A page from a template."""
        return HTMLResponse(self._templates.get_template(template).render(**values), headers=HEADERS)

    def banner(self, request: Request) -> Banner | None:
        """What the request's address says was changed or undone; None if a later decision replaced it."""
        if (undone := request.query_params.get("undone", "")).isdecimal():
            pairs = "1 pair" if undone == "1" else f"{int(undone):,} pairs"
            return Banner(f"The last decision about {pairs} was undone.", "")
        change = request.query_params.get("changed", "")
        digests = self.reviews.changed(change)
        number = self.index.number_of(min(digests)) if digests else None
        if number is None:
            return None
        what = f"Pair {number}" if len(digests) == 1 else f"{len(digests):,} pairs"
        decision = self.reviews.of(min(digests))
        return Banner(f"{what} {VERDICTS[decision.verdict] if decision else 'made undecided'}.", change)

    def line(self, request: Request) -> tuple[PairLine, Row]:
        """The pair that a request's path names, see `pair`."""
        return self.pair(request.path_params["number"])

    def pair(self, number: int) -> tuple[PairLine, Row]:
        """A pair: its line of the index, and its row of the file.

        Raises:
            HTTPException: there is no such pair, or the file has changed.
        """
        lines = self.index.lines([number]) if number < 2**63 else []  # SQLite has no larger numbers
        if not lines:
            raise HTTPException(404, "There is no pair with this number, or it is not read yet. Try again later.")
        row = self.index.row(lines[0])
        if row is None:
            raise HTTPException(409, "The file has changed. Open the list of pairs to read it again.")
        return lines[0], row
