"""What is posted to a server that speaks the OpenAI API for one chat completion, and what comes back."""

import math
from dataclasses import replace
from typing import Any

from lf_longpo.config import ChatConfig
from lf_longpo.errors import CallFailed, TryAgain, first_line
from lf_longpo.models.chat import ChatRequest, Completion, token_behind, weights_behind
from lf_longpo.providers import is_hosted

# The most alternatives a token that OpenAI and vLLM tell.
_ALTERNATIVES = 20
# Reasons for an ended reply that mean a provider's filter ended it (OpenAI's and Zhipu's words).
_FILTERED = {"content_filter", "sensitive"}


def request_body(config: ChatConfig, request: ChatRequest) -> dict[str, Any]:
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


def read_reply(reply: Any, request: ChatRequest) -> Completion:
    """The completion in a reply.

    Args:
        reply: its JSON, as plain data.
        request: what was asked.

    Raises:
        TryAgain: it is no completion, or an empty one.
        CallFailed: it was refused, or withheld by a filter.
        AttributeError: it is no object at all.
    """
    usage = reply.get("usage") or {}
    used = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    try:
        return replace(_completion(reply, used, request), cached_tokens=_cached(usage))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise TryAgain(f"the server's reply cannot be read: {first_line(error)}", used) from None


def _cached(usage: dict[str, Any]) -> int:
    """Prompt tokens from the prefix cache, in OpenAI's and vLLM's place or in DeepSeek's."""
    details = usage.get("prompt_tokens_details")
    told = details.get("cached_tokens") if isinstance(details, dict) else usage.get("prompt_cache_hit_tokens")
    return told if isinstance(told, int) else 0


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
