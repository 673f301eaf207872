"""Chat with any OpenAI-compatible server through the official async client."""

import math
from typing import TYPE_CHECKING, Any

from lf_longpo.config import ChatConfig
from lf_longpo.errors import CallFailed, UserError
from lf_longpo.models.chat import ChatRequest, Completion, token_behind, weights_behind
from lf_longpo.models.openai_client import make_client, plain_errors
from lf_longpo.providers import is_hosted

if TYPE_CHECKING:
    from openai.types.chat.chat_completion import Choice

# The most alternatives a token that OpenAI and vLLM tell.
_ALTERNATIVES = 20
# Reasons for an ended reply that mean a provider's filter ended it (OpenAI's and Zhipu's words).
_FILTERED = {"content_filter", "sensitive"}
# Providers whose list of models is none, or wants another kind of key than the calls.
_UNLISTED = {"anthropic", "zhipu"}


class OpenAIChat:
    """A `ChatModel` behind HTTP."""

    def __init__(self, config: ChatConfig) -> None:
        self._config = config
        # vLLM and SGLang go on with a reply that was begun; hosted providers start a new one.
        self.continues_replies = not is_hosted(config.base_url)
        self._client = make_client(config.base_url, config.api_key_env, config.timeout, config.max_retries)

    async def start(self) -> int | None:
        """Asks for the list of models: finds a dead server, a wrong key or a wrong name before any work is done."""
        import openai

        config = self._config
        if config.provider in _UNLISTED:
            return None
        try:
            with plain_errors(config.base_url, config.api_key_env):
                try:
                    listed = await self._client.with_options(max_retries=1, timeout=30).models.list()
                except (openai.NotFoundError, openai.BadRequestError):
                    return None  # this server does not list its models
                # vLLM and SGLang tell the window here; OpenAI does not.
                windows = {model.id: getattr(model, "max_model_len", None) for model in listed.data or []}
        except CallFailed as error:
            raise UserError(f"{error}; start the server or mend base_url") from None
        # Hosted providers serve aliases and older models that they do not list.
        if windows and config.model not in windows and not is_hosted(config.base_url):
            served = ", ".join(sorted(map(str, windows))[:10])
            raise UserError(f"{config.base_url or 'OpenAI'} does not serve {config.model!r}; it serves {served}")
        return windows.get(config.model)

    async def complete(self, request: ChatRequest) -> Completion:
        """One chat completion; see `ChatModel.complete`."""
        config = self._config
        with plain_errors(config.base_url, config.api_key_env):
            reply = await self._client.chat.completions.create(**_arguments(config, request))
            choice, usage = reply.choices[0] if reply.choices else None, reply.usage
            used = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
            if choice is not None and choice.finish_reason in _FILTERED:
                raise CallFailed("the server's content filter withheld the reply", used)
            if choice is None or choice.message.content is None:
                refusal = choice.message.refusal if choice else None
                raise CallFailed(f"the server's reply holds no text{f': {refusal}' if refusal else ''}", used)
            return Completion(
                text=choice.message.content,
                prompt_tokens=used[0],
                completion_tokens=used[1],
                finish_reason=choice.finish_reason or "unknown",
                weights=_weights(choice, request) if request.weigh_after else None,
            )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()


def _arguments(config: ChatConfig, request: ChatRequest) -> dict[str, Any]:
    """The call's arguments; what would only repeat the API's defaults is left out where a server may not know it."""
    sampling = request.sampling
    messages = [{"role": "user", "content": request.prompt}]
    arguments: dict[str, Any] = {
        "model": config.model,
        "messages": messages,
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_new_tokens,
    }
    # What is left out vLLM takes from the model's own defaults.
    if sampling.top_p < 1 or not is_hosted(config.base_url):
        arguments["top_p"] = sampling.top_p
    if sampling.presence_penalty:
        arguments["presence_penalty"] = sampling.presence_penalty
    if config.send_seed:
        arguments["seed"] = request.seed
    if request.weigh_after:
        arguments |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
    if request.reply_start:
        messages.append({"role": "assistant", "content": request.reply_start})
        arguments["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
    return arguments


def _weights(choice: "Choice", request: ChatRequest) -> dict[str, float] | None:
    tokens = choice.logprobs.content if choice.logprobs and choice.logprobs.content else []
    place = token_behind(request.weigh_after, request.reply_start, [token.token for token in tokens])
    if place is None:
        return None
    index, held = place
    return weights_behind(held, ((other.token, math.exp(other.logprob)) for other in tokens[index].top_logprobs))
