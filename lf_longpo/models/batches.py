"""Files of requests at a provider's Batch API: uploaded, made a batch of, followed to its end, brought home.

An upload is noted before a batch is made of it, and a batch whose note was lost is found by its file, so that no kill
makes anybody pay twice.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar

from lf_longpo.aio import Once
from lf_longpo.config import ChatConfig
from lf_longpo.config.providers import OPENAI_URL
from lf_longpo.errors import CallFailed, TryAgain, UserError
from lf_longpo.models.batch_store import BatchStore
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.openai_client import make_client, plain_errors, refuse_error
from lf_longpo.text.differences import whole_letters

if TYPE_CHECKING:
    from openai.types import Batch

# Seconds between two looks at a batch: doubled each time.
_FIRST_LOOK, _LONGEST_LOOK = 5.0, 60.0
# Seconds that a provider may be out of reach, or its queue full, while nothing of ours gets on there.
_PATIENCE = 3600.0
# Seconds after which a provider must know, and list, what it took; and by which its clock may differ from ours.
_SETTLING, _CLOCKS_APART = 60.0, 3600.0
# How often output files are read that lack answers which the provider counts.
_DOWNLOADS = 10
# Zhipu tells times in milliseconds; in seconds this is the year 5138.
_MILLISECONDS = 1e11
_ENDED = {"completed", "expired", "cancelled"}
_FAILED = "failed"
# What OpenAI says of a batch whose prompts do not fit beside those that it has already.
_QUEUE_FULL = "token_limit_exceeded"

T = TypeVar("T")


class _State(NamedTuple):
    """A batch as it is now."""

    id: str
    status: str
    outputs: list[str]
    """Its files of answers and of errors, as far as they are there."""
    answered: int | None
    """Requests that have one or the other; None where the provider does not count."""
    faults: list[tuple[str, str]]
    """Why it failed: the provider's code, and words for people."""


class Batches:
    """All batches of one model.

    Args:
        config: the model's, with `batch`.
        endpoint: what the requests are posted to.
        store: remembers what was handed in.
        ledger: shown the batches; ends the waiting when the run is to end.
    """

    def __init__(self, config: ChatConfig, endpoint: str, store: BatchStore, ledger: Ledger) -> None:
        [url] = config.base_urls
        self._name = url or OPENAI_URL
        self._key = config.api_key_env
        self._endpoint: Any = endpoint
        self._store = store
        self._ledger = ledger
        self._client = make_client(url, config.api_key_env, config.timeout, max_retries=0)
        self._collecting: Once[None] = Once(0)
        self._queueing = asyncio.Lock()
        self._running: set[str] = set()
        self._ours: set[str] = set()  # files that this process handed in

    async def upload(self, lines: IO[bytes]) -> str:
        """Gives the provider a file of requests; its id.

        Raises:
            UserError: it takes none.
            Interrupted: the run is to end.
        """

        async def put() -> str:
            lines.seek(0)
            upload = ("requests.jsonl", lines)
            with self._unknown(f"{self._name} has no Batch API of OpenAI's form; remove batch"):
                return _known(self._told(await self._client.files.create(file=upload, purpose="batch")).id)

        file = await self._patiently(put)
        self._ours.add(file)
        return file

    def verdict(self, file: str, words: str) -> UserError | TryAgain:
        """What a refusal means: the run's end, or another try of what an earlier start handed in (mended by now?)."""
        return UserError(words) if file in self._ours else TryAgain(words)

    async def collect(self, file: str) -> None:
        """Follows an uploaded file to the end of its batch, and keeps what came of it; once for all who ask.

        Raises:
            UserError: the provider refuses the batch, or somebody cancelled it.
            TryAgain: the provider was out of reach for too long.
            Interrupted: the run is to end; the batch goes on.
        """
        await self._collecting.get(file, lambda: self._collect(file))

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def _collect(self, file: str) -> None:
        try:
            state = await self._ended(file)
            for _ in range(_DOWNLOADS):
                for output in state.outputs:
                    await self._patiently(lambda output=output: self._download(file, output))
                there, all = self._store.replies(file)
                expected = state.answered if state.answered is not None else all
                if there >= min(expected, all):
                    break
                self._ledger.batches[file] = f"{state.id}: {state.status}, {there:,} of {expected:,} answers are there"
                await self._ledger.pause(_LONGEST_LOOK)
                state = await self._patiently(lambda: self._look(file))
        finally:
            self._ledger.batches.pop(file, None)
            self._running.discard(file)
        self._store.ended(file)
        if state.status == "cancelled" and file in self._ours:
            raise UserError(f"the batch {state.id} was cancelled; the same command hands in again what it left")

    async def _ended(self, file: str) -> _State:
        wait = _FIRST_LOOK
        while True:
            state = await self._patiently(lambda: self._look(file))
            if state.status == _FAILED:
                self._ledger.batches.pop(file, None)
                self._running.discard(file)
                async with self._queueing:  # one after the other asks again, not all of them every minute
                    state = await self._queue(file, state)
            if state.status in _ENDED:
                return state
            done = "" if state.answered is None else f", {state.answered:,} answers"
            self._ledger.batches[file] = f"{state.id}: {state.status}{done}"
            self._running.add(file)
            await self._ledger.pause(wait * random.uniform(0.8, 1.2))
            wait = min(2 * wait, _LONGEST_LOOK)

    async def _queue(self, file: str, state: _State) -> _State:
        """Makes batches of a file until the provider's queue takes one."""
        given_up_at = time.monotonic() + _PATIENCE
        while state.status == _FAILED:
            words = "; ".join(told for _, told in state.faults[:3]) or "it does not say why"
            full = any(code == _QUEUE_FULL for code, _ in state.faults)
            if not full or time.monotonic() > given_up_at:
                self._store.ended(file)
                hint = "; it must have room for one file of requests" if full else ""
                raise self.verdict(file, f"{self._name} refused the batch {state.id}: {words}{hint}")
            self._store.began(file, None)
            self._ledger.batches[file] = f"{state.id} has to wait: {words}"
            await self._ledger.pause(_LONGEST_LOOK)
            if self._running:  # others of ours are getting on there
                given_up_at = time.monotonic() + _PATIENCE
            state = await self._patiently(lambda: self._look(file))
        return state

    async def _look(self, file: str) -> _State:
        """The file's batch as it is now; made where there is none."""
        known, since, tried = self._store.upload(file)
        if known:
            where = (
                f"; use the key it was handed in with, or remove {self._store.path}: what it waits for is paid again"
            )
            with self._unknown(f"{self._name} does not know the batch {known}{where}"):
                return _state_of(self._told(await self._client.batches.retrieve(known)))
        state = await self._find(file, since)
        if state is None:
            if time.time() - tried < _SETTLING:  # that one may not be listed yet
                raise TryAgain("a batch was asked for and is not there yet")
            state = await self._create(file, since)
        self._store.began(file, state.id)
        return state

    async def _find(self, file: str, since: float) -> _State | None:
        """A batch whose creation was not noted, since this process, an earlier one or the connection died over it."""
        page = self._told(await self._client.batches.list(limit=100))  # the latest first
        if page.data is None:
            raise ValueError("no list of batches")
        async for batch in page:
            if batch.input_file_id == file and batch.status != _FAILED:
                return _state_of(batch)
            created = batch.created_at / 1000 if batch.created_at > _MILLISECONDS else batch.created_at
            if created < since - _CLOCKS_APART:
                break
        return None

    async def _create(self, file: str, since: float) -> _State:
        import openai

        await self._ledger.pause(0)  # the last chance not to buy it
        self._store.tries(file)
        try:
            with plain_errors(self._name, self._key):
                try:
                    batch = await self._client.batches.create(
                        input_file_id=file, endpoint=self._endpoint, completion_window="24h"
                    )
                    return _state_of(self._told(batch))
                except openai.NotFoundError as error:
                    raise CallFailed(f"{self._name} answered 404: {error.message}") from None
        except TryAgain:
            self._store.tries(file)  # it may have been made just now
            raise
        except CallFailed as error:
            self._store.began(file, None)  # it came to nothing
            if time.time() - since < _SETTLING:  # some providers do not know at once what was uploaded
                raise TryAgain(str(error)) from None
            self._store.ended(file)
            raise UserError(f"no batch can be made: {error}") from None

    async def _download(self, file: str, output: str) -> None:
        """Keeps the answers that an output file has to the requests of `file`."""
        rest = b""
        with self._unknown(f"{self._name} does not have the answers any more (file {output})"):
            async with self._client.files.with_streaming_response.content(output) as response:
                async for part in _parts(response.iter_bytes()):
                    # Only at line breaks proper: texts may hold Unicode's other ones.
                    *lines, rest = (rest + part).split(b"\n")
                    self._keep(file, lines)
        self._keep(file, [rest])

    def _keep(self, file: str, lines: list[bytes]) -> None:
        replies = []
        for line in lines:
            try:
                replies.append((whole_letters(json.loads(line)["custom_id"]), line.decode()))
            except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
                continue  # torn, or a web page; what it should have been is missed afterwards
        if replies:
            self._store.came_back(file, replies)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks the provider until it answers; what it holds is worth waiting for."""
        given_up_at = time.monotonic() + _PATIENCE
        while True:
            try:
                with plain_errors(self._name, self._key):
                    return await ask()
            except TryAgain as error:
                if time.monotonic() > given_up_at:
                    raise
                await self._ledger.pause(max(error.after, _FIRST_LOOK))
            except CallFailed as error:  # not of one request, but of all
                raise UserError(str(error)) from None

    def _told(self, reply: T) -> T:
        """A reply, unless it is an error with HTTP status 200."""
        refuse_error(self._name, reply)
        return reply

    @contextmanager
    def _unknown(self, words: str) -> Iterator[None]:
        """Says what "not found" means here."""
        import openai

        try:
            yield
        except openai.NotFoundError:
            raise UserError(f"{words} (404)") from None


def _known(text: str | None) -> str:
    """What the client found in a reply; it takes any JSON and leaves out what is missing."""
    if not text:
        raise ValueError("not what was asked for")
    return text


async def _parts(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The parts of a body; the client does not turn its transport's errors into its own here."""
    try:
        async for part in body:
            yield part
    except Exception as error:
        if not type(error).__module__.startswith("httpx"):
            raise
        raise TryAgain(f"the download broke off ({type(error).__name__})") from None


def _state_of(batch: "Batch") -> _State:
    """Takes a batch apart; whatever else came instead fails here (a web page, or nothing)."""
    _known(batch.id and batch.status)
    counts = batch.request_counts
    told = counts is not None and (counts.completed is not None or counts.failed is not None)
    faults = (batch.errors and batch.errors.data) or []
    return _State(
        batch.id,
        batch.status,
        [output for output in (batch.output_file_id, batch.error_file_id) if output],
        (counts.completed or 0) + (counts.failed or 0) if told else None,
        [
            (fault.code or "", f"line {fault.line}: {fault.message}" if fault.line else f"{fault.message}")
            for fault in faults
        ],
    )
