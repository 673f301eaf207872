"""The application of `longpo view`: which address shows which page."""

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lf_longpo.data.review import Reviews
from lf_longpo.errors import UserError
from lf_longpo.report.page import REPORT
from lf_longpo.run_folder.pair_sets import PairSet
from lf_longpo.viewer.decision_pages import DecisionPages
from lf_longpo.viewer.display import keep_display
from lf_longpo.viewer.index import PairIndex
from lf_longpo.viewer.list_pages import ListPages
from lf_longpo.viewer.pair_pages import PairPages
from lf_longpo.viewer.question_pages import QuestionPages
from lf_longpo.viewer.site import HEADERS, Site


class AllowedHosts:
    """Middleware that refuses requests for other hosts, so that another site's domain cannot point to this server.

    Args:
        app: the application.
        hosts: the allowed names and addresses.
        refusal: the response to other hosts.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], refusal: Response) -> None:
        self._app = app
        self._hosts = hosts
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles an ASGI connection."""
        if (
            scope["type"] == "http"
            and urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname not in self._hosts
        ):
            await self._refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def make_app(pairs: PairSet, index: PairIndex, reviews: Reviews, hosts: Collection[str] | None) -> Starlette:
    """The application.

    Args:
        pairs: the set of pairs.
        index: its index.
        reviews: the decisions about its pairs.
        hosts: the allowed host names of requests; None for any.
    """
    site = Site(pairs, index, reviews)
    list_pages, pair_pages = ListPages(site), PairPages(site)
    decisions = DecisionPages(site, pair_pages)

    def report_page(request: Request) -> Response:
        path = pairs.run.path / REPORT if pairs.run else None
        if path is None or not path.is_file():
            raise HTTPException(404, "There is no report. Run longpo report first.")
        return HTMLResponse(path.read_text(encoding="utf-8"), headers=HEADERS)

    refusal = site.errors.page(400, "This host is not allowed. Open the address that longpo view printed.", "")
    middleware = [Middleware(AllowedHosts, hosts=hosts, refusal=refusal)] if hosts else []
    routes = [
        Route("/", list_pages.list_page),
        Route("/end", list_pages.end_page),
        Route("/pair/{number:int}", pair_pages.pair_page),
        Route("/pair/{number:int}", decisions.decide, methods=["POST"]),
        Route("/decide", decisions.question_page),
        Route("/decide", decisions.decide_all, methods=["POST"]),
        Route("/undo", decisions.undo, methods=["POST"]),
        Route("/report", report_page),
        Route("/display", keep_display, methods=["POST"]),
    ]
    if site.records:
        question_pages = QuestionPages(site, site.records)
        routes += [
            Route("/questions", question_pages.list_page),
            Route("/question", question_pages.question_page),
            Route("/question", question_pages.choose, methods=["POST"]),
        ]
    handlers: dict[Any, Any] = {
        HTTPException: site.errors.of_http,
        UserError: site.errors.of_user,
        Exception: site.errors.of_any,
    }
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)
