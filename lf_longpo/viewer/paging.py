"""Pages of a list: which part of it a request shows."""

from typing import NamedTuple

from starlette.requests import Request

PAGE = 50
"""The number of lines per page of a list."""


class Page(NamedTuple):
    """A page of a list."""

    number: int
    """From 1."""
    last: int
    """The number of the last page."""
    shown: slice
    """Its part of the list."""


def page_of(request: Request, found: int) -> Page:
    """The page that a request asks for; the nearest one if there is no such page.

    Args:
        request: has the parameter `page`.
        found: the number of lines of the list.
    """
    last = max(1, -(-found // PAGE))
    asked = request.query_params.get("page", "")
    number = min(max(1, int(asked) if asked.isdecimal() else 1), last)
    return Page(number, last, slice((number - 1) * PAGE, number * PAGE))
