"""The pages of errors: what happened, and the way back to the list. They show no text of a data set."""

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

if TYPE_CHECKING:
    from jinja2 import Environment

_BROKEN = "The page could not be made. The terminal of longpo view shows the reason."
# Starlette's own messages, in words that say what to do.
_MESSAGES = {
    "Not Found": "There is no page at this address.",
    "Method Not Allowed": "This address takes no such request. Use the buttons and links of the pages.",
}


class ErrorPages:
    """Handlers of exceptions.

    Args:
        environment: the templates.
        headers: the headers of all pages.
    """

    def __init__(self, environment: "Environment", headers: dict[str, str]) -> None:
        self._template = environment.get_template("error.html")
        self._headers = headers

    def page(self, status: int, message: str, back: str = "/") -> Response:
        """The page of an error.

        Args:
            status: the HTTP status.
            message: what happened and what to do.
            back: the address of the list; empty for none.
        """
        page = self._template.render(status=status, message=message, back=back)
        return HTMLResponse(page, status, headers=self._headers)

    def of_http(self, request: Request, error: Exception) -> Response:
        """The page of an error that a handler raised. The way back keeps the filter."""
        assert isinstance(error, HTTPException)
        response = self.page(error.status_code, _MESSAGES.get(error.detail, error.detail), f"/?{request.url.query}")
        response.headers.update(error.headers or {})
        return response

    def of_user(self, request: Request, error: Exception) -> Response:
        """The page of an error that the user can fix, such as a full disk."""
        return self.page(500, str(error))

    def of_any(self, request: Request, error: Exception) -> Response:
        """The page of an error in the program. Starlette raises the error again, and the server prints it."""
        return self.page(500, _BROKEN)
