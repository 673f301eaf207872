"""Chat with any OpenAI-compatible server through the official async client."""

import math
import time
from typing import Any

from lf_longpo.config import ChatConfig
from lf_longpo.errors import CallFailed, TryAgain, UserError, first_line
from lf_longpo.models.chat import ChatRequest, Completion, token_behind, weights_behind
from lf_longpo.models.openai_client import make_client, plain_errors
from lf_longpo.models.servers import Server, Servers
from lf_longpo.providers import is_hosted

# The most alternatives a token that OpenAI and vLLM tell.
_ALTERNATIVES = 20
# Reasons for an ended reply that mean a provider's filter ended it (OpenAI's and Zhipu's words).
_FILTERED = {"content_filter", "sensitive"}
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
            # vLLM and SGLang tell the window here; OpenAI does not.
            windows = {model.id: getattr(model, "max_model_len", None) for model in listed.data or []}
        # Hosted providers serve aliases and older models that they do not list.
        if windows and config.model not in windows and not is_hosted(server.base_url):
            served = ", ".join(sorted(map(str, windows))[:10])
            raise UserError(f"{server.base_url} does not serve {config.model!r}; it serves {served}")
        return windows.get(config.model)

    async def complete(self, request: ChatRequest) -> Completion:
        """One chat completion; see `ChatModel.complete`."""
        config = self._config
        server = self._servers.pick(request.affinity)
        with server.call() as new_tokens, plain_errors(server.base_url, config.api_key_env):
            # The plain call and the reply as plain data: the client's typed ones take half of its time a call.
            reply: Any = await server.client.post("/chat/completions", cast_to=object, body=_body(config, request))
            usage = reply.get("usage") or {}
            used = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
            try:
                completion = _completion(reply, used, request)
            except (ValueError, TypeError, AttributeError, LookupError) as error:
                raise TryAgain(f"the server's reply cannot be read: {first_line(error)}", used) from None
            new_tokens.append(used[1])
            return completion

    async def close(self) -> None:
        """Closes the connections."""
        await self._servers.close()


def _body(config: ChatConfig, request: ChatRequest) -> dict[str, Any]:
    """What is posted; what would only repeat the API's defaults is left out where a server may not know it."""
    sampling = request.sampling
    messages = [{"role": "user", "content": request.prompt}]
    body: dict[str, Any] = {
        "model": config.model,
        "messages": messages,
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_new_tokens,
    }
    # What is left out vLLM takes from the model's own defaults.
    if sampling.top_p < 1 or not any(map(is_hosted, config.base_urls)):
        body["top_p"] = sampling.top_p
    if sampling.presence_penalty:
        body["presence_penalty"] = sampling.presence_penalty
    if config.send_seed:
        body["seed"] = request.seed
    if request.weigh_after:
        body |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
    if request.reply_start:
        messages.append({"role": "assistant", "content": request.reply_start})
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def _completion(reply: Any, used: tuple[int, int], request: ChatRequest) -> Completion:
    choice = next(iter(reply["choices"]), None)
    if choice is None:
        raise TryAgain("the server's reply holds no text", used)
    message, reason = choice["message"], choice.get("finish_reason") or "unknown"
    if reason in _FILTERED:
        raise CallFailed("the server's content filter withheld the reply", used)
    if message.get("refusal"):
        raise CallFailed(f"the model refused: {str(message['refusal'])[:500]}", used)
    if not isinstance(message.get("content"), str):
        # A model that thinks may come to no answer within its tokens, and would not the next time.
        kind = CallFailed if reason == "length" else TryAgain
        raise kind("the server's reply holds no text", used)
    return Completion(
        text=message["content"],
        prompt_tokens=used[0],
        completion_tokens=used[1],
        finish_reason=reason,
        weights=_weights(choice, request) if request.weigh_after else None,
    )


def _weights(choice: dict[str, Any], request: ChatRequest) -> dict[str, float] | None:
    tokens = (choice.get("logprobs") or {}).get("content") or []
    place = token_behind(request.weigh_after, request.reply_start, [token["token"] for token in tokens])
    if place is None:
        return None
    index, held = place
    likeliest = tokens[index].get("top_logprobs") or []
    return weights_behind(held, ((other["token"], math.exp(other["logprob"])) for other in likeliest))
