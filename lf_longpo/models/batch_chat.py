"""Chat through a provider's Batch API: mostly half the price, an answer within a day.

Requests that arrive together are handed in together and their answers wait at the provider, whatever becomes of this
process: an upload is noted before a batch is made of it, and a batch whose note was lost is found by its file.
"""

import json
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from lf_longpo.aio import Once
from lf_longpo.config import ChatConfig
from lf_longpo.errors import CallFailed, TryAgain, UserError
from lf_longpo.models.batch_store import BatchStore
from lf_longpo.models.cache import request_hash
from lf_longpo.models.chat import ChatRequest, Completion
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.openai_chat import OpenAIChat
from lf_longpo.models.openai_client import make_client, plain_errors, refused
from lf_longpo.models.openai_wire import read_reply, request_body
from lf_longpo.providers import OPENAI_URL

if TYPE_CHECKING:
    from openai.types import Batch

# Seconds without a new request after which those that wait are handed in.
_QUIET = 10.0
# One batch's bounds: both providers' on requests, the smaller one's (Zhipu's 100 MB, OpenAI's 200) on bytes.
_MOST_REQUESTS, _MOST_BYTES = 50_000, 90_000_000
# Seconds between two looks at a batch: doubled each time.
_FIRST_LOOK, _LONGEST_LOOK = 5.0, 60.0
# Seconds that a provider may be out of reach while a batch is under way there.
_OUT_OF_REACH = 3600.0
# Seconds after which a provider must know a file that it took, and by which its clock may differ from ours.
_SETTLING, _CLOCKS_APART = 60.0, 3600.0
_ENDED = {"completed", "expired", "cancelled"}
# What OpenAI says of a batch whose prompts do not fit beside those that it has already.
_QUEUE_FULL = "token_limit_exceeded"
_OK, _SERVER_ERROR = 200, 500
# How often an output file is read that holds something else than answers.
_DOWNLOADS = 3
# Output lines that are read between two writes.
_LINES = 500

T = TypeVar("T")


class BatchChat:
    """A `ChatModel` behind the Batch API of a provider that has OpenAI's.

    Args:
        config: the model's, with `batch`.
        store: remembers what was handed in.
        ledger: shown the batches; ends the waiting when the run is to end.
    """

    continues_replies = False

    def __init__(self, config: ChatConfig, store: BatchStore, ledger: Ledger) -> None:
        self.limit = config.calls_at_once
        self._config = config
        self._store = store
        self._ledger = ledger
        self._directly = OpenAIChat(config)
        [self._url] = config.base_urls
        self._client = make_client(self._url, config.api_key_env, config.timeout, max_retries=0)
        version = urlsplit(self._url or OPENAI_URL).path.rstrip("/").rpartition("/")[2]
        self._endpoint: Any = f"/{version}/chat/completions"
        self._group: _Group | None = None
        self._handing_in: Once[None] = Once(0)
        self._collecting: Once[None] = Once(0)

    async def start(self) -> int | None:
        """As without batches."""
        return await self._directly.start()

    async def complete(self, request: ChatRequest) -> Completion:
        """One chat completion, hours later; see `ChatModel.complete`."""
        id = request_hash({"model": self._config.model, **request.identity()})
        place = self._store.place(id)
        if place is None:
            group = self._join(id, request)
            await self._handing_in.get(group, lambda: self._hand_in(group))
            place = self._store.place(id)
        if place.reply is None:
            await self._collecting.get(place.file, lambda: self._collect(place.file))
            place = self._store.place(id)
        if place is None:
            raise TryAgain("the batch ended without an answer")
        try:
            return self._read(place.reply, request)
        except CallFailed:
            self._store.forget(id)
            raise

    async def close(self) -> None:
        """Closes connections and the store."""
        await self._directly.close()
        await self._client.close()
        self._store.close()

    def _join(self, id: str, request: ChatRequest) -> "_Group":
        """Adds a request to those that will be handed in next."""
        row = {"custom_id": id, "method": "POST", "url": self._endpoint, "body": request_body(self._config, request)}
        line = json.dumps(row).encode() + b"\n"
        if self._group is None or not self._group.has_room(line):
            self._group = _Group()
        self._group.add(id, line)
        return self._group

    async def _hand_in(self, group: "_Group") -> None:
        while self._group is group and (wait := group.grown + _QUIET - time.monotonic()) > 0:
            await self._ledger.pause(wait)
        if self._group is group:
            self._group = None
        with group.lines:
            file = await self._patiently(lambda: self._upload(group.lines))
        self._store.uploaded(file, group.ids)

    async def _upload(self, lines: IO[bytes]) -> str:
        lines.seek(0)
        file = await self._client.files.create(file=("requests.jsonl", lines), purpose="batch")
        return file.id

    async def _collect(self, file: str) -> None:
        """Follows an uploaded file to the end of its batch, and brings home what came of it."""
        try:
            batch = await self._ended(file)
        finally:
            self._ledger.batches.pop(file, None)
        for output in (batch.output_file_id, batch.error_file_id):
            if output:
                await self._bring_home(output)
        self._store.ended(file)
        if batch.status == "cancelled":
            raise UserError(f"the batch {batch.id} was cancelled; the same command hands in again what it left")

    async def _ended(self, file: str) -> "Batch":
        wait = _FIRST_LOOK
        while True:
            batch = await self._patiently(lambda: self._look(file))
            if batch.status == "failed":
                self._settle_failure(file, batch)
            elif batch.status in _ENDED:
                return batch
            counts = batch.request_counts
            done = f", {counts.completed + counts.failed:,} of {counts.total:,}" if counts else ""
            self._ledger.batches[file] = f"{batch.id}: {batch.status}{done}"
            await self._ledger.pause(wait * random.uniform(0.8, 1.2))
            wait = min(2 * wait, _LONGEST_LOOK)

    def _settle_failure(self, file: str, batch: "Batch") -> None:
        """Makes way for another batch of the same file where the provider's queue was full."""
        faults = (batch.errors and batch.errors.data) or []
        if any(fault.code == _QUEUE_FULL for fault in faults):
            self._store.began(file, None)
            return
        self._store.ended(file)
        why = "; ".join(
            f"line {fault.line}: {fault.message}" if fault.line else f"{fault.message}" for fault in faults[:3]
        )
        raise UserError(f"{self._url or OPENAI_URL} refused the batch {batch.id}: {why or 'it does not say why'}")

    async def _look(self, file: str) -> "Batch":
        """The file's batch as it is now; made where there is none."""
        from openai.types import Batch

        known, since = self._store.upload(file)
        if known:
            batch = await self._client.batches.retrieve(known)
        else:
            batch = await self._find(file, since) or await self._create(file, since)
        if not isinstance(batch, Batch):  # the client hands on a web page too
            raise TryAgain("the provider sent something else than a batch")
        self._store.began(file, batch.id)
        return batch

    async def _find(self, file: str, since: float) -> "Batch | None":
        """A batch whose creation was not noted, since this process, an earlier one or the connection died over it."""
        async for batch in self._client.batches.list(limit=100):  # the latest first
            if batch.input_file_id == file and batch.status != "failed":
                return batch
            if batch.created_at < since - _CLOCKS_APART:
                break
        return None

    async def _create(self, file: str, since: float) -> "Batch":
        try:
            with plain_errors(self._url, self._config.api_key_env):
                return await self._client.batches.create(
                    input_file_id=file, endpoint=self._endpoint, completion_window="24h"
                )
        except TryAgain:
            raise
        except CallFailed as error:
            if time.time() - since < _SETTLING:
                raise TryAgain(str(error)) from None
            raise UserError(f"no batch can be made: {error}") from None

    async def _bring_home(self, output: str) -> None:
        """Keeps an output file's lines. A line that stays unreadable belongs to a request that is made again."""
        for _ in range(_DOWNLOADS):
            if await self._patiently(lambda: self._download(output)):
                break
            await self._ledger.pause(_FIRST_LOOK)

    async def _download(self, output: str) -> bool:
        """Keeps the lines that can be read; tells whether that was all of them."""
        replies: list[tuple[str, str]] = []
        whole = True
        async with self._client.files.with_streaming_response.content(output) as response:
            async for line in response.iter_lines():
                try:
                    replies.append((json.loads(line)["custom_id"], line))
                except (ValueError, TypeError, LookupError):
                    whole = whole and not line.strip()
                if len(replies) == _LINES:
                    self._store.came_back(replies)
                    replies.clear()
        self._store.came_back(replies)
        return whole

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks the provider until it answers; what it holds is worth waiting for."""
        lost_at = time.monotonic() + _OUT_OF_REACH
        while True:
            try:
                with plain_errors(self._url, self._config.api_key_env):
                    return await ask()
            except TryAgain as error:
                if time.monotonic() > lost_at:
                    raise
                await self._ledger.pause(max(error.after, _FIRST_LOOK))

    def _read(self, reply: str, request: ChatRequest) -> Completion:
        with plain_errors(self._url, self._config.api_key_env):
            row = json.loads(reply)
            response = row.get("response") or {}
            status, body = response.get("status_code") or _SERVER_ERROR, response.get("body") or {}
            if status == _OK:
                return read_reply(body, request)
            error = row.get("error") or body.get("error") or {}
            code, words = str(error.get("code") or ""), str(error.get("message") or "it does not say why")
            raise refused(self._url or OPENAI_URL, status, code, words[:500])


class _Group:
    """Requests that will be handed in together; their lines wait on the disk."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.lines: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed when it is handed in
        self.grown = time.monotonic()

    def has_room(self, line: bytes) -> bool:
        return len(self.ids) < _MOST_REQUESTS and self.lines.tell() + len(line) <= _MOST_BYTES

    def add(self, id: str, line: bytes) -> None:
        self.lines.write(line)
        self.ids.append(id)
        self.grown = time.monotonic()
