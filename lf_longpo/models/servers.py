"""The servers of a model: which one gets the next call, and which get none for now."""

import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lf_longpo.errors import NoServer, TryAgain
from lf_longpo.models.pace import Pace

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# Seconds without calls for a server that cannot be reached, doubled each time.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
# Failed calls in a row after which a reachable server counts as down.
_SICK = 16


class Server:
    """A server and its state.

    Args:
        base_url: its address; None is OpenAI's.
        client: a client for this address.
        most: the most calls at once; None to find the number.
    """

    def __init__(self, base_url: str | None, client: "AsyncOpenAI", most: int | None) -> None:
        self.base_url = base_url
        self.client = client
        self.opens_at = 0.0
        self.under_way = 0
        self.pace = Pace(most)
        self._closed_at = 0.0
        self._pause = _FIRST_PAUSE
        self._failed = 0

    @contextmanager
    def call(self) -> Iterator[list[int]]:
        """Surrounds a call, which adds its number of new tokens to the list. The result sets the server's pace."""
        tokens: list[int] = []
        began = time.monotonic()
        self.under_way += 1
        try:
            yield tokens
        except TryAgain as error:
            now = time.monotonic()
            self._failed += 1
            if error.unreachable or self._failed >= _SICK:
                self.close(began)
            elif error.overloaded:
                self.pace.refused(began, now)
                self.opens_at = max(self.opens_at, now + error.after)
            raise
        else:
            self._pause = _FIRST_PAUSE
            self._failed = 0
            self.pace.came_back(began, time.monotonic(), sum(tokens))
        finally:
            self.under_way -= 1

    def close(self, began: float) -> None:
        """Sends the server no calls for a while; `began` is the start of the call that did not reach it."""
        if began < self._closed_at:
            return  # this call failed together with the one that closed the server
        self._closed_at = time.monotonic()
        self.opens_at = self._closed_at + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


class Servers:
    """All servers of a model."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers)

    @property
    def limit(self) -> int:
        """Number of calls that may be in flight at all open servers; at least 1."""
        now = time.monotonic()
        return sum(server.pace.limit for server in self._servers if server.opens_at <= now) or 1

    def pick(self, affinity: str) -> Server:
        """The server for the next call.

        Args:
            affinity: calls with the same value go to the same server while it has room, because its prefix cache holds
                their common beginning.

        Raises:
            NoServer: all servers are closed.
        """
        now = time.monotonic()
        open = [server for server in self._servers if server.opens_at <= now]
        if not open:
            first = min(self._servers, key=lambda server: server.opens_at)
            raise NoServer(
                f"no calls go to {first.base_url} for now: it was unreachable or overloaded", after=first.opens_at - now
            )
        home = max(open, key=lambda server: zlib.crc32(f"{server.base_url} {affinity}".encode()))
        if home.under_way < home.pace.limit:
            return home
        return min(open, key=lambda server: server.under_way / server.pace.limit)

    async def close(self) -> None:
        """Closes the connections."""
        for server in self._servers:
            await server.client.close()
