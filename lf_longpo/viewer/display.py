"""How responses are displayed: with marked differences or without, as plain text or as Markdown.

The switches of a page work in the page alone. A cookie keeps them for the next pages.
"""

from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

_COOKIE = "display"
# A cookie's value has no comma.
_AND = "-"


class Display(NamedTuple):
    """The state of the switches when a page opens."""

    marks: bool = True
    markdown: bool = False


def display_of(request: Request) -> Display:
    """The display that the browser keeps."""
    kept = request.cookies.get(_COOKIE)
    return Display() if kept is None else Display(*(name in kept.split(_AND) for name in Display._fields))


async def keep_display(request: Request) -> Response:
    """Keeps the switches of a form for all pages, and returns to the page of the form."""
    form = await request.form()
    page = urlsplit(request.headers.get("referer", ""))
    same = page.netloc == request.headers.get("host") and page.path.startswith("/") and page.path[1:2] != "/"
    response = RedirectResponse(page._replace(scheme="", netloc="", fragment="").geturl() if same else "/", 303)
    kept = _AND.join(name for name in Display._fields if form.get(name))
    response.set_cookie(_COOKIE, kept or "none", httponly=True, samesite="strict")
    return response
