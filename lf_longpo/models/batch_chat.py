"""Chat through a provider's Batch API: mostly half the price, a reply within a day.

Requests that arrive together are submitted together (batches.py). The provider keeps the replies until a later start of
the run collects them.
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
from lf_longpo.models.request_parameters import RequestParameters

# Seconds without a new request after which the waiting requests are submitted.
_QUIET = 10.0
# Limits of one batch: OpenAI's and Zhipu's number of requests, and less than the smaller of their file sizes (Zhipu's
# 100 MB).
_MOST_REQUESTS, _MOST_BYTES = 50_000, 90_000_000
_OK, _SERVER_ERROR = 200, 500


class BatchChat:
    """A `ChatModel` that uses the Batch API of OpenAI, or of a provider with the same API.

    Args:
        config: the model's configuration, with `batch: true`.
        store: keeps the submitted requests.
        ledger: shows the batches and interrupts the waiting at the end of the run.
    """

    def __init__(self, config: ChatConfig, store: BatchStore, ledger: Ledger) -> None:
        self.limit = config.calls_at_once
        self.continues_replies = config.continues_replies or False
        self._config = config
        self._store = store
        self._ledger = ledger
        self._direct = OpenAIChat(config)
        # By the model's name alone: the server's refusals arrive with the end of a batch, hours later.
        self._parameters = RequestParameters(config.model)
        [self._url] = config.base_urls
        version = urlsplit(self._url or OPENAI_URL).path.rstrip("/").rpartition("/")[2]
        self._endpoint = "/".join(["", *filter(None, [version]), "chat", "completions"])
        self._batches = Batches(config, self._endpoint, store, ledger)
        self._group: _Group | None = None
        self._submitting: Once[None] = Once(0)

    async def start(self) -> int | None:
        """Same as without batches."""
        return await self._direct.start()

    async def complete(self, request: ChatRequest) -> Completion:
        """One chat completion, hours later; see `ChatModel.complete`."""
        id = request_hash({"model": self._config.model, **self._config.request_settings, **request.identity()})
        submitted = self._store.find(id)
        if submitted is None:
            group = self._join(id, request)
            await self._submitting.get(group, lambda: self._submit(group))
            submitted = self._store.find(id)
        if submitted is not None and submitted.reply is None:
            await self._batches.collect(submitted.file)
            submitted = self._store.find(id)
        if submitted is None or submitted.reply is None:
            raise TryAgain("the batch ended without a reply to this request")
        try:
            return self._read(submitted.reply, request)
        except CallFailed:
            self._store.forget(id)
            raise
        except UserError as error:
            self._store.forget(id)
            raise self._batches.refusal(submitted.file, str(error)) from None

    async def close(self) -> None:
        """Closes connections and the store."""
        await self._direct.close()
        await self._batches.close()
        self._store.close()

    def _join(self, id: str, request: ChatRequest) -> "_Group":
        """Adds a request to the group that will be submitted next."""
        row = {
            "custom_id": id,
            "method": "POST",
            "url": self._endpoint,
            "body": self._parameters.adapt(request_body(self._config, request)),
        }
        line = json.dumps(row).encode() + b"\n"
        if self._group is None or not self._group.has_room(line):
            self._group = _Group()
        self._group.add(id, line)
        return self._group

    async def _submit(self, group: "_Group") -> None:
        try:
            while self._group is group and (wait := group.last_added + _QUIET - time.monotonic()) > 0:
                await self._ledger.pause(wait)
            self._seal(group)
            self._store.uploaded(await self._batches.upload(group.lines), group.ids)
        finally:
            self._seal(group)
            group.lines.close()

    def _seal(self, group: "_Group") -> None:
        """From now on, no request joins the group."""
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
            code, message = str(error.get("code") or ""), str(error.get("message") or "no reason given")
            raise refused(self._url or OPENAI_URL, status, code, message)


class _Group:
    """Requests that will be submitted together; their lines wait on disk."""

    def __init__(self) -> None:
        self.ids: dict[str, None] = {}
        self.lines: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed after the submission
        self.last_added = time.monotonic()

    def has_room(self, line: bytes) -> bool:
        return len(self.ids) < _MOST_REQUESTS and self.lines.tell() + len(line) <= _MOST_BYTES

    def add(self, id: str, line: bytes) -> None:
        if id not in self.ids:  # a cancelled call may have added it before
            self.ids[id] = None
            self.lines.write(line)
        self.last_added = time.monotonic()
