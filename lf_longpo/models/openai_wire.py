"""What is posted to a server that speaks the OpenAI API for one chat completion, and what comes back."""

import math
from dataclasses import replace
from typing import Any

from lf_longpo.config import ChatConfig
from lf_longpo.config.providers import is_hosted
from lf_longpo.errors import CallFailed, TryAgain, first_line
from lf_longpo.models.cache import CUT_OFF
from lf_longpo.models.chat import ChatRequest, Completion, token_behind, weights_behind
from lf_longpo.text.differences import whole_letters

# The most alternatives a token that OpenAI and vLLM tell.
_ALTERNATIVES = 20
# Reasons for an ended reply. A provider's filter ended it (OpenAI's and Zhipu's words):
_FILTERED = {"content_filter", "sensitive"}
# Something broke, and what is there of the text is no reply (OpenRouter, vLLM and SGLang, Zhipu, DeepSeek):
_BROKEN = {"error", "abort", "network_error", "insufficient_system_resource"}
# It met max_tokens (OpenAI, Anthropic) or the model's window (Mistral, Zhipu):
_CUT_OFF = {CUT_OFF, "max_tokens", "model_length", "model_context_window_exceeded"}
# Parts of a content that are text, in the words of the chat API and of OpenAI's later one.
_TEXT_PARTS = {"text", "output_text"}
# More is no number of tokens.
_MOST_TOKENS = 10**9


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
        TryAgain: it is no completion, a broken one or an empty one.
        CallFailed: it was refused, withheld by a filter, or cut off before any text.
    """
    if not isinstance(reply, dict):
        raise TryAgain(f"the server's reply is no JSON object but {type(reply).__name__}")
    used = used_tokens(reply)
    try:
        return replace(_completion(reply, used, request), cached_tokens=_cached(reply))
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        words = f"{type(error).__name__}: {first_line(error)}"
        raise TryAgain(f"the server's reply cannot be read ({words})", used) from None


def used_tokens(reply: dict[str, Any]) -> tuple[int, int]:
    """Prompt and new tokens of a reply; 0 where they are not told."""
    usage = _usage(reply)
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _usage(reply: dict[str, Any]) -> dict[str, Any]:
    usage = reply.get("usage")
    return usage if isinstance(usage, dict) else {}


def _count(told: Any) -> int:
    """A number of tokens; 0 where there is none."""
    return told if isinstance(told, int) and 0 < told <= _MOST_TOKENS else 0


def _cached(reply: dict[str, Any]) -> int:
    """Prompt tokens from the prefix cache, in OpenAI's and vLLM's place or in DeepSeek's."""
    usage = _usage(reply)
    details = usage.get("prompt_tokens_details")
    return _count(details.get("cached_tokens") if isinstance(details, dict) else usage.get("prompt_cache_hit_tokens"))


def _completion(reply: dict[str, Any], used: tuple[int, int], request: ChatRequest) -> Completion:
    choices = reply.get("choices")
    if not choices:
        raise TryAgain("the server's reply holds no choices", used)
    choice = choices[0]
    message, reason = choice["message"], choice.get("finish_reason")
    reason = whole_letters(reason) if reason and isinstance(reason, str) else "unknown"
    if reason in _FILTERED:
        raise CallFailed("the server's content filter withheld the reply", used)
    if reason in _BROKEN:
        raise TryAgain(f"the server broke the reply off (finish_reason {reason})", used)
    if refusal := message.get("refusal"):
        raise CallFailed(f"the model refused: {whole_letters(str(refusal))[:500]}", used)
    text = _text(message.get("content"))
    if not (request.reply_start + text).strip():
        # A model that thinks may come to no answer within its tokens, and would not the next time.
        kind = CallFailed if reason in _CUT_OFF else TryAgain
        raise kind(f"the server's reply holds no text (finish_reason {reason})", used)
    return Completion(
        text=text,
        prompt_tokens=used[0],
        completion_tokens=used[1],
        finish_reason=CUT_OFF if reason in _CUT_OFF else reason,
        weights=_weights(choice, request) if request.weigh_after else None,
    )


def _text(content: Any) -> str:
    """The text of a message, which may come in parts: those of other kinds (thoughts, images) do not belong to it."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] in _TEXT_PARTS)
    if isinstance(content, str | None):
        return content or ""
    raise TypeError(f"content is {type(content).__name__}")


def _weights(choice: dict[str, Any], request: ChatRequest) -> dict[str, float] | None:
    tokens = (choice.get("logprobs") or {}).get("content") or []
    place = token_behind(request.weigh_after, request.reply_start, [token["token"] for token in tokens])
    if place is None:
        return None
    index, held = place
    likeliest = tokens[index].get("top_logprobs") or []
    return weights_behind(held, ((other["token"], _probability(other["logprob"])) for other in likeliest))


def _probability(logprob: float) -> float:
    """In [0, 1], whatever a server's arithmetic came to."""
    return 0.0 if math.isnan(logprob) else math.exp(min(logprob, 0.0))
