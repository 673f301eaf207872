"""The life of a batch at a provider: upload of its file of requests, creation, waiting, download of the replies.

The upload is noted before the batch is created, and a batch that was created without a note is found by its file. So
nothing is paid twice, whenever the process is killed.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar

from lf_longpo.aio import Once
from lf_longpo.config import ChatConfig
from lf_longpo.config.providers import OPENAI_URL
from lf_longpo.errors import CallFailed, TryAgain, UserError
from lf_longpo.models.batch_store import BatchStore
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.openai_client import make_chat_client, plain_errors, refuse_error
from lf_longpo.text.differences import whole_letters

if TYPE_CHECKING:
    from openai.types import Batch

# Seconds between two requests for the state of a batch: doubled each time.
_FIRST_LOOK, _LONGEST_LOOK = 5.0, 60.0
# Seconds that a provider may be unreachable, or its queue full, while none of our batches makes progress.
_PATIENCE = 3600.0
# Seconds after which a provider must know and list a new file or batch; seconds that its clock may differ from ours.
_SETTLING, _CLOCKS_APART = 60.0, 3600.0
# How often output files are downloaded while they lack replies that the provider counts.
_DOWNLOADS = 10
# Zhipu reports times in milliseconds; in seconds this is the year 5138.
_MILLISECONDS = 1e11
_ENDED = {"completed", "expired", "cancelled"}
_FAILED = "failed"
# OpenAI's code for a batch with more tokens than the account's queue has room for.
_QUEUE_FULL = "token_limit_exceeded"

T = TypeVar("T")


class _State(NamedTuple):
    """The present state of a batch."""

    id: str
    status: str
    outputs: list[str]
    """Ids of its files of replies and of errors, as far as they exist."""
    answered: int | None
    """Number of requests with a reply or an error; None if the provider does not report it."""
    faults: list[tuple[str, str]]
    """Why it failed: the provider's codes and messages."""


class Batches:
    """All batches of one model.

    Args:
        config: the model's configuration, with `batch: true`.
        endpoint: path that the requests are posted to.
        store: keeps the submitted requests.
        ledger: shows the batches and interrupts the waiting at the end of the run.
    """

    def __init__(self, config: ChatConfig, endpoint: str, store: BatchStore, ledger: Ledger) -> None:
        [url] = config.base_urls
        self._name = url or OPENAI_URL
        self._key = config.api_key_env
        self._endpoint: Any = endpoint
        self._store = store
        self._ledger = ledger
        self._client = make_chat_client(config, url)
        self._collecting: Once[None] = Once(0)
        self._queueing = asyncio.Lock()
        self._running: set[str] = set()
        self._ours: set[str] = set()  # files that this process uploaded

    async def upload(self, lines: IO[bytes]) -> str:
        """Uploads a file of requests and returns its id.

        Raises:
            UserError: the provider has no Batch API, or refuses the file.
            Interrupted: the run ends.
        """

        async def put() -> str:
            lines.seek(0)
            upload = ("requests.jsonl", lines)
            with self._not_found(f"{self._name} has no Batch API like OpenAI's; remove batch"):
                return _required(self._checked(await self._client.files.create(file=upload, purpose="batch")).id)

        file = await self._patiently(put)
        self._ours.add(file)
        return file

    def refusal(self, file: str, message: str) -> UserError | TryAgain:
        """The error for a refusal: it ends the run, or the file is submitted again if an earlier start uploaded it."""
        return UserError(message) if file in self._ours else TryAgain(message)

    async def collect(self, file: str) -> None:
        """Waits for the batch of an uploaded file and stores its replies; once for all callers of the same file.

        Raises:
            UserError: the provider refuses the batch, or the batch was cancelled.
            TryAgain: the provider was unreachable for too long.
            Interrupted: the run ends; the provider continues the batch.
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
                    await self._patiently(partial(self._download, file, output))
                arrived, submitted = self._store.replies(file)
                expected = state.answered if state.answered is not None else submitted
                if arrived >= min(expected, submitted):
                    break
                self._ledger.batches[file] = f"{state.id}: {state.status}, {arrived:,} of {expected:,} replies arrived"
                await self._ledger.pause(_LONGEST_LOOK)
                state = await self._patiently(lambda: self._look(file))
        finally:
            self._ledger.batches.pop(file, None)
            self._running.discard(file)
        self._store.ended(file)
        if state.status == "cancelled" and file in self._ours:
            raise UserError(
                f"the batch {state.id} was cancelled; run the same command again to submit the requests that it left"
            )

    async def _ended(self, file: str) -> _State:
        wait = _FIRST_LOOK
        while True:
            state = await self._patiently(lambda: self._look(file))
            if state.status == _FAILED:
                self._ledger.batches.pop(file, None)
                self._running.discard(file)
                async with self._queueing:  # files try again one after the other, not all of them every minute
                    state = await self._queue(file, state)
            if state.status in _ENDED:
                return state
            done = "" if state.answered is None else f", {state.answered:,} replies"
            self._ledger.batches[file] = f"{state.id}: {state.status}{done}"
            self._running.add(file)
            await self._ledger.pause(wait * random.uniform(0.8, 1.2))
            wait = min(2 * wait, _LONGEST_LOOK)

    async def _queue(self, file: str, state: _State) -> _State:
        """Creates batches from a file until the provider's queue accepts one."""
        given_up_at = time.monotonic() + _PATIENCE
        while state.status == _FAILED:
            reason = "; ".join(message for _, message in state.faults[:3]) or "no reason given"
            full = any(code == _QUEUE_FULL for code, _ in state.faults)
            if not full or time.monotonic() > given_up_at:
                self._store.ended(file)
                hint = "; lower max_concurrency until one file of requests fits the queue" if full else ""
                raise self.refusal(file, f"{self._name} refused the batch {state.id}: {reason}{hint}")
            self._store.began(file, None)
            self._ledger.batches[file] = f"{state.id} waits for room in the queue: {reason}"
            await self._ledger.pause(_LONGEST_LOOK)
            if self._running:  # other batches of this run make progress
                given_up_at = time.monotonic() + _PATIENCE
            state = await self._patiently(lambda: self._look(file))
        return state

    async def _look(self, file: str) -> _State:
        """The present state of a file's batch, which is created if there is none."""
        known, since, tried = self._store.upload(file)
        if known:
            fix = (
                f"use the key it was submitted with, or remove {self._store.path} (the replies it waits for are then "
                "paid again)"
            )
            with self._not_found(f"{self._name} does not know the batch {known}; {fix}"):
                return _state_of(self._checked(await self._client.batches.retrieve(known)))
        state = await self._find(file, since)
        if state is None:
            if time.time() - tried < _SETTLING:  # that batch may not be listed yet
                raise TryAgain("a batch was requested and does not exist yet")
            state = await self._create(file, since)
        self._store.began(file, state.id)
        return state

    async def _find(self, file: str, since: float) -> _State | None:
        """A batch that was created without a note, because the process or the connection died in between."""
        page = self._checked(await self._client.batches.list(limit=100))  # the latest first
        if page.data is None:
            raise ValueError("not a list of batches")
        async for batch in page:
            if batch.input_file_id == file and batch.status != _FAILED:
                return _state_of(batch)
            created = batch.created_at / 1000 if batch.created_at > _MILLISECONDS else batch.created_at
            if created < since - _CLOCKS_APART:
                break
        return None

    async def _create(self, file: str, since: float) -> _State:
        import openai

        await self._ledger.pause(0)  # an interrupted run stops here, before it pays
        self._store.tries(file)
        try:
            with plain_errors(self._name, self._key):
                try:
                    batch = await self._client.batches.create(
                        input_file_id=file, endpoint=self._endpoint, completion_window="24h"
                    )
                    return _state_of(self._checked(batch))
                except openai.NotFoundError as error:
                    raise CallFailed(f"{self._name} answered 404: {error.message}") from None
        except TryAgain:
            self._store.tries(file)  # it may have been created just now
            raise
        except CallFailed as error:
            self._store.began(file, None)  # nothing was created
            if time.time() - since < _SETTLING:  # some providers need a moment to find a new upload
                raise TryAgain(str(error)) from None
            self._store.ended(file)
            raise UserError(f"the provider creates no batch: {error}") from None

    async def _download(self, file: str, output: str) -> None:
        """Stores the replies of an output file to the requests of `file`."""
        rest = b""
        with self._not_found(f"{self._name} no longer has the replies (file {output})"):
            async with self._client.files.with_streaming_response.content(output) as response:
                async for part in _parts(response.iter_bytes()):
                    # Split at \n alone: texts may hold Unicode's other line breaks.
                    *lines, rest = (rest + part).split(b"\n")
                    self._store_replies(file, lines)
        self._store_replies(file, [rest])

    def _store_replies(self, file: str, lines: list[bytes]) -> None:
        replies = []
        for line in lines:
            try:
                replies.append((whole_letters(json.loads(line)["custom_id"]), line.decode()))
            except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
                continue  # a torn line or a web page; the reply counts as missing
        if replies:
            self._store.came_back(file, replies)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Calls the provider until it answers: its replies are paid for.

        Written out because tenacity would add a dependency and no shorter code: the wait is the server's own, and the
        pause must end at once when the run is interrupted.
        """
        given_up_at = time.monotonic() + _PATIENCE
        while True:
            try:
                with plain_errors(self._name, self._key):
                    return await ask()
            except TryAgain as error:
                if time.monotonic() > given_up_at:
                    raise
                await self._ledger.pause(max(error.after, _FIRST_LOOK))
            except CallFailed as error:  # concerns the whole batch
                raise UserError(str(error)) from None

    def _checked(self, reply: T) -> T:
        """`reply`; raises if it is an error that was sent with HTTP status 200."""
        refuse_error(self._name, reply)
        return reply

    @contextmanager
    def _not_found(self, message: str) -> Iterator[None]:
        """Raises `UserError` with this message where the provider answers "not found"."""
        import openai

        try:
            yield
        except openai.NotFoundError:
            raise UserError(f"{message} (404)") from None


def _required(text: str | None) -> str:
    """A field of a reply; the client accepts any JSON, and missing fields are None."""
    if not text:
        raise ValueError("a required field is missing")
    return text


async def _parts(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The parts of a body. The client does not translate errors of its transport here."""
    try:
        async for part in body:
            yield part
    except Exception as error:
        if not type(error).__module__.startswith("httpx"):
            raise
        raise TryAgain(f"the download was interrupted ({type(error).__name__})") from None


def _state_of(batch: "Batch") -> _State:
    """Reads a batch; anything else (a web page, an empty reply) fails here."""
    _required(batch.id and batch.status)
    counts = batch.request_counts
    answered = None
    if counts is not None and (counts.completed is not None or counts.failed is not None):
        answered = (counts.completed or 0) + (counts.failed or 0)
    faults = (batch.errors and batch.errors.data) or []
    return _State(
        batch.id,
        batch.status,
        [output for output in (batch.output_file_id, batch.error_file_id) if output],
        answered,
        [
            (fault.code or "", f"line {fault.line}: {fault.message}" if fault.line else f"{fault.message}")
            for fault in faults
        ],
    )
