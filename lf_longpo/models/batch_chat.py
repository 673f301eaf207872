"""Chat through a provider's Batch API: mostly half the price, an answer within a day.

Requests that arrive together are handed in together (batches.py), and their answers wait at the provider, whatever
becomes of this process.
"""

import json
import tempfile
import time
from typing import IO, Any
from urllib.parse import urlsplit

from lf_longpo.aio import Once
from lf_longpo.config import ChatConfig
from lf_longpo.config.providers import OPENAI_URL
from lf_longpo.errors import CallFailed, TryAgain, UserError
from lf_longpo.models.batch_store import BatchStore
from lf_longpo.models.batches import Batches
from lf_longpo.models.cache import request_hash
from lf_longpo.models.chat import ChatRequest, Completion
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.openai_chat import OpenAIChat
from lf_longpo.models.openai_client import plain_errors, refuse_error, refused
from lf_longpo.models.openai_wire import read_reply, request_body

# Seconds without a new request after which those that wait are handed in.
_QUIET = 10.0
# One batch's bounds: both providers' on requests, the smaller one's (Zhipu's 100 MB, OpenAI's 200) on bytes.
_MOST_REQUESTS, _MOST_BYTES = 50_000, 90_000_000
_OK, _SERVER_ERROR = 200, 500


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
        version = urlsplit(self._url or OPENAI_URL).path.rstrip("/").rpartition("/")[2]
        self._endpoint = "/".join(["", *filter(None, [version]), "chat", "completions"])
        self._batches = Batches(config, self._endpoint, store, ledger)
        self._group: _Group | None = None
        self._handing_in: Once[None] = Once(0)

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
        if place is not None and place.reply is None:
            await self._batches.collect(place.file)
            place = self._store.place(id)
        if place is None:
            raise TryAgain("the batch ended without an answer")
        try:
            return self._read(place.reply, request)
        except CallFailed:
            self._store.forget(id)
            raise
        except UserError as error:
            self._store.forget(id)
            raise self._batches.verdict(place.file, str(error)) from None

    async def close(self) -> None:
        """Closes connections and the store."""
        await self._directly.close()
        await self._batches.close()
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
        try:
            while self._group is group and (wait := group.grown + _QUIET - time.monotonic()) > 0:
                await self._ledger.pause(wait)
            self._leave(group)
            self._store.uploaded(await self._batches.upload(group.lines), group.ids)
        finally:
            self._leave(group)
            group.lines.close()

    def _leave(self, group: "_Group") -> None:
        """Nothing joins the group any more."""
        if self._group is group:
            self._group = None

    def _read(self, reply: str, request: ChatRequest) -> Completion:
        with plain_errors(self._url, self._config.api_key_env):
            row = json.loads(reply)
            response = row.get("response") or {}
            status, body = response.get("status_code") or _SERVER_ERROR, response.get("body") or {}
            if status == _OK:
                refuse_error(self._url or OPENAI_URL, body)
                return read_reply(body, request)
            error: dict[str, Any] = row.get("error") or body.get("error") or {}
            code, words = str(error.get("code") or ""), str(error.get("message") or "it does not say why")
            raise refused(self._url or OPENAI_URL, status, code, words)


class _Group:
    """Requests that will be handed in together; their lines wait on the disk."""

    def __init__(self) -> None:
        self.ids: dict[str, None] = {}
        self.lines: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed when it was handed in
        self.grown = time.monotonic()

    def has_room(self, line: bytes) -> bool:
        return len(self.ids) < _MOST_REQUESTS and self.lines.tell() + len(line) <= _MOST_BYTES

    def add(self, id: str, line: bytes) -> None:
        if id not in self.ids:  # one who gave up may have left it there
            self.ids[id] = None
            self.lines.write(line)
        self.grown = time.monotonic()
