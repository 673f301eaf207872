"""Chat with any OpenAI-compatible server through the official async client."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lf_longpo.config import ChatConfig
from lf_longpo.config.providers import OPENAI_URL, is_hosted
from lf_longpo.errors import CallFailed, Refused, UserError
from lf_longpo.models.chat import ChatRequest, Completion
from lf_longpo.models.openai_client import make_client, plain_errors, refuse_error
from lf_longpo.models.openai_wire import read_reply, request_body
from lf_longpo.models.servers import Server, Servers

if TYPE_CHECKING:
    from openai.types import Model

# Providers whose list of models is none, or wants another kind of key than the calls.
_UNLISTED = {"anthropic", "zhipu"}


class OpenAIChat:
    """A `ChatModel` behind HTTP, on one server or several that serve the same."""

    def __init__(self, config: ChatConfig) -> None:
        self._config = config
        # vLLM and SGLang go on with a reply that was begun; hosted providers start a new one.
        self.continues_replies = not any(map(is_hosted, config.base_urls))
        most = None if config.max_concurrency == "auto" else config.max_concurrency
        self._servers = Servers(
            [
                Server(url, make_client(url, config.api_key_env, config.timeout, max_retries=0), most)
                for url in config.base_urls
            ]
        )

    @property
    def limit(self) -> int:
        """What the servers that can be reached take now."""
        return self._servers.limit

    async def start(self) -> int | None:
        """Asks for the list of models: finds a dead server, a wrong key or a wrong name before any work is done.

        Of several servers one must answer; the others are tried again later. The window is the smallest.
        """
        if self._config.provider in _UNLISTED:
            return None
        windows: list[int | None] = []
        dead: list[str] = []
        for server in self._servers:
            try:
                windows.append(await self._window(server))
            except Refused as error:
                raise UserError(f"{error}; check base_url and the key in {self._config.api_key_env}") from None
            except CallFailed as error:
                dead.append(str(error))
                server.close(time.monotonic())
        if not windows:
            raise UserError(f"{'; '.join(dead)}; start the server or mend base_url")
        return min((window for window in windows if window), default=None)

    async def _window(self, server: Server) -> int | None:
        import openai

        config = self._config
        with plain_errors(server.base_url, config.api_key_env):
            try:
                listed = await server.client.with_options(max_retries=1, timeout=30).models.list()
            except (openai.NotFoundError, openai.BadRequestError):
                return None  # this server does not list its models
            refuse_error(server.base_url or OPENAI_URL, listed)
            models = {model.id: model for model in listed.data or []}
        # Hosted providers serve aliases and older models that they do not list.
        if models and config.model not in models and not is_hosted(server.base_url):
            served = ", ".join(sorted(map(str, models))[:10])
            raise UserError(f"{server.base_url} does not serve {config.model!r}; it serves {served}")
        return _window_of(config.model, models)

    async def complete(self, request: ChatRequest) -> Completion:
        """One chat completion; see `ChatModel.complete`."""
        config = self._config
        server = self._servers.pick(request.affinity)
        with server.call() as new_tokens, plain_errors(server.base_url, config.api_key_env):
            # The plain call and the reply as plain data: the client's typed ones take half of its time a call.
            body = request_body(config, request)
            reply = await server.client.post("/chat/completions", cast_to=object, body=body)
            refuse_error(server.base_url or OPENAI_URL, reply)
            completion = read_reply(reply, request)
            new_tokens.append(completion.completion_tokens)
            return completion

    async def close(self) -> None:
        """Closes the connections."""
        await self._servers.close()


def _window_of(name: str, models: Mapping[str, "Model"]) -> int | None:
    """The window that a server tells for a model, as vLLM and SGLang do; for an adapter, that of its base model."""
    passed: set[str] = set()
    while name in models and name not in passed:
        window = getattr(models[name], "max_model_len", None)
        if isinstance(window, int) and window > 0:
            return window
        passed.add(name)
        name = str(getattr(models[name], "parent", None))
    return None
