"""Chat on any OpenAI-compatible server, through the official async client."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lf_longpo.aio import Once
from lf_longpo.config import ChatConfig
from lf_longpo.config.providers import OPENAI_URL, is_hosted, provider_at
from lf_longpo.errors import CallFailed, Refused, UserError
from lf_longpo.models.chat import ChatRequest, Completion
from lf_longpo.models.openai_client import (
    key_hint,
    make_chat_client,
    plain_errors,
    refuse_error,
    refuse_missing_version,
)
from lf_longpo.models.openai_wire import read_reply, request_body
from lf_longpo.models.request_parameters import ParameterRefused, RequestParameters
from lf_longpo.models.servers import Server, Servers

if TYPE_CHECKING:
    from openai.types import Model

# Providers without a list of models, or with one that needs another kind of key than the calls.
_UNLISTED = {"anthropic", "zhipu"}


class OpenAIChat:
    """A `ChatModel` on one or several servers of the same model."""

    def __init__(self, config: ChatConfig) -> None:
        self._config = config
        self._started: Once[int | None] = Once(1)
        # vLLM and SGLang continue a reply that was started; hosted providers start a new one.
        self.continues_replies = (
            not any(map(is_hosted, config.base_urls)) if config.continues_replies is None else config.continues_replies
        )
        self._parameters = RequestParameters(config.model)
        most = None if config.max_concurrency == "auto" else config.max_concurrency
        self._servers = Servers([Server(url, make_chat_client(config, url), most) for url in config.base_urls])

    @property
    def limit(self) -> int:
        """Number of calls that the reachable servers take at once."""
        return self._servers.limit

    async def start(self) -> int | None:
        """Requests the list of models once, to find a wrong address, key or name before any work is done.

        At least one of several servers must answer; the rest is tried again later. The smallest window counts.
        """
        return await self._started.get(None, self._start)

    async def _start(self) -> int | None:
        if {self._config.provider, *map(provider_at, self._config.base_urls)} & _UNLISTED:
            return None
        windows: list[int | None] = []
        unreachable: list[str] = []
        for server in self._servers:
            try:
                windows.append(await self._window(server))
            except Refused as error:
                raise UserError(f"{error}; check base_url and {key_hint(self._config.api_key_env)}") from None
            except CallFailed as error:
                unreachable.append(str(error))
                server.close(time.monotonic())
        if not windows:
            raise UserError(f"{'; '.join(unreachable)}; start the server or fix base_url")
        return min((window for window in windows if window), default=None)

    async def _window(self, server: Server) -> int | None:
        import openai

        config = self._config
        with plain_errors(server.base_url, config.api_key_env):
            try:
                listed = await server.client.with_options(max_retries=1, timeout=30).models.list()
            except openai.NotFoundError:
                await refuse_missing_version(server.client, "base_url")
                return None  # this server does not list its models
            except openai.BadRequestError:
                return None  # likewise
            refuse_error(server.base_url or OPENAI_URL, listed)
            models = {model.id: model for model in listed.data or []}
        # Hosted providers serve aliases and older models that they do not list; Azure lists no deployments.
        hosted = is_hosted(server.base_url) or config.provider == "azure"
        if models and config.model not in models and not hosted:
            served = ", ".join(sorted(map(str, models))[:10])
            raise UserError(f"{server.base_url} does not serve {config.model!r}; it serves {served}")
        return _window_of(config.model, models)

    async def complete(self, request: ChatRequest) -> Completion:
        """Makes a chat completion; see `ChatModel.complete`."""
        body = request_body(self._config, request)
        while True:
            adapted = self._parameters.adapt(body)
            try:
                return await self._post(request, adapted)
            except ParameterRefused as refusal:
                if not self._parameters.learn(refusal, adapted):
                    raise

    async def _post(self, request: ChatRequest, body: dict[str, Any]) -> Completion:
        server = self._servers.pick(request.affinity)
        with server.call() as new_tokens, plain_errors(server.base_url, self._config.api_key_env):
            # An untyped call with plain data: the client's typed objects take half of its time.
            reply = await server.client.post("/chat/completions", cast_to=object, body=body)
            refuse_error(server.base_url or OPENAI_URL, reply)
            completion = read_reply(reply, request)
            new_tokens.append(completion.completion_tokens)
            return completion

    async def close(self) -> None:
        """Closes the connections."""
        await self._servers.close()


def _window_of(name: str, models: Mapping[str, "Model"]) -> int | None:
    """The window that a server reports for a model, as vLLM, SGLang and OpenRouter (`context_length`) do.

    For an adapter, that of its base model.
    """
    seen: set[str] = set()
    while name in models and name not in seen:
        for field in ("max_model_len", "context_length"):
            window = getattr(models[name], field, None)
            if isinstance(window, int) and window > 0:
                return window
        seen.add(name)
        name = str(getattr(models[name], "parent", None))
    return None
