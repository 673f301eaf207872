"""A small gap in asyncio: waiting for several calls without abandoning those that still run when one fails."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def all_settled(*work: Awaitable[T]) -> list[T]:
    """The results, in order. Where some fail, the first error, once all have ended: what finishes is kept and paid for.

    Raises:
        BaseException: the first error.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
