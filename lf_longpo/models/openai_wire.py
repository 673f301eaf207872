"""The body of a chat completion request in the OpenAI API, and how its reply is read."""

import math
from dataclasses import replace
from typing import Any

from lf_longpo.config import ChatConfig
from lf_longpo.config.providers import is_hosted
from lf_longpo.errors import CallFailed, TryAgain, first_line
from lf_longpo.models.cache import CUT_OFF
from lf_longpo.models.chat import ChatRequest, Completion, messages_of, token_after, weights_after
from lf_longpo.text.differences import whole_letters

# The most alternatives for each token that OpenAI and vLLM report.
_ALTERNATIVES = 20
# Finish reasons. A provider's filter ended the reply (OpenAI, Zhipu):
_FILTERED = {"content_filter", "sensitive"}
# An error ended it, and its text is incomplete (OpenRouter, vLLM and SGLang, Zhipu, DeepSeek):
_BROKEN = {"error", "abort", "network_error", "insufficient_system_resource"}
# It reached max_tokens (OpenAI, Anthropic) or the model's window (Mistral, Zhipu):
_CUT_OFF = {CUT_OFF, "max_tokens", "model_length", "model_context_window_exceeded"}
# Types of text parts in a content: of the chat API and of OpenAI's later Responses API.
_TEXT_PARTS = {"text", "output_text"}
# Types of parts that hold a thought, as a text or as a list of text parts (Anthropic and Mistral, Zhipu).
_THOUGHT_PARTS = {"thinking", "reasoning"}
# Fields of a message that hold the thought (DeepSeek, SGLang and vLLM before 0.12; OpenRouter and vLLM).
_THOUGHT_FIELDS = ("reasoning_content", "reasoning")
# A larger number is not a number of tokens.
_MOST_TOKENS = 10**9


def request_body(config: ChatConfig, request: ChatRequest) -> dict[str, Any]:
    """The body of a request. Defaults of the API are left out where a server may not know the parameter."""
    sampling = request.sampling
    messages = messages_of(request.prompt, config.system)
    body: dict[str, Any] = {
        "model": config.model,
        "messages": messages,
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_new_tokens,
    }
    # vLLM takes what is missing from the model's own defaults.
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
    return {**(config.extra_body or {}), **body}


def read_reply(reply: Any, request: ChatRequest) -> Completion:
    """Reads the completion in a reply.

    Args:
        reply: the reply's JSON as plain data.
        request: the request.

    Raises:
        TryAgain: the reply is not a completion, incomplete or empty.
        CallFailed: the reply was refused, withheld by a filter, or cut off before any text.
    """
    if not isinstance(reply, dict):
        raise TryAgain(f"the server's reply is not a JSON object but {type(reply).__name__}")
    used = used_tokens(reply)
    try:
        return replace(_completion(reply, used, request), cached_tokens=_cached(reply))
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        words = f"{type(error).__name__}: {first_line(error)}"
        raise TryAgain(f"the server's reply cannot be read ({words})", used) from None


def used_tokens(reply: dict[str, Any]) -> tuple[int, int]:
    """Prompt and new tokens of a reply; 0 if they are not reported."""
    usage = _usage(reply)
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _usage(reply: dict[str, Any]) -> dict[str, Any]:
    usage = reply.get("usage")
    return usage if isinstance(usage, dict) else {}


def _count(value: Any) -> int:
    """A number of tokens; 0 if the value is not one."""
    return value if isinstance(value, int) and 0 < value <= _MOST_TOKENS else 0


def _cached(reply: dict[str, Any]) -> int:
    """Prompt tokens from the prefix cache, in the field of OpenAI and vLLM or in that of DeepSeek."""
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
        raise TryAgain(f"an error of the server ended the reply (finish_reason {reason})", used)
    if refusal := message.get("refusal"):
        raise CallFailed(f"the model refused: {whole_letters(str(refusal))[:500]}", used)
    text, thought = _text(message.get("content")), _thought(message)
    if not (request.reply_start + text + thought).strip():
        # A reasoning model that reports no thoughts may reach no answer within the limit; another try would not help.
        message = f"the server's reply holds no text (finish_reason {reason})"
        raise (CallFailed if reason in _CUT_OFF else TryAgain)(message, used)
    return Completion(
        text=text,
        prompt_tokens=used[0],
        completion_tokens=used[1],
        finish_reason=CUT_OFF if reason in _CUT_OFF else reason,
        weights=_weights(choice, request) if request.weigh_after else None,
        thought=thought,
    )


def _text(content: Any) -> str:
    """The text of a message. It may come in parts; parts of other types (thoughts, images) are skipped."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] in _TEXT_PARTS)
    if isinstance(content, str | None):
        return content or ""
    raise TypeError(f"content is {type(content).__name__}")


def _thought(message: dict[str, Any]) -> str:
    """The thought that a server reports apart from the text; empty if there is none."""
    for name in _THOUGHT_FIELDS:
        if isinstance(thought := message.get(name), str) and thought.strip():
            return thought.strip()
    content = message.get("content")
    parts = [part for part in content if part["type"] in _THOUGHT_PARTS] if isinstance(content, list) else []
    return "".join(_part_text(part.get(part["type"])) for part in parts).strip()


def _part_text(value: Any) -> str:
    if isinstance(value, list):
        return "".join(part["text"] for part in value if part["type"] in _TEXT_PARTS)
    return value if isinstance(value, str) else ""


def _weights(choice: dict[str, Any], request: ChatRequest) -> dict[str, float] | None:
    tokens = (choice.get("logprobs") or {}).get("content") or []
    found = token_after(request.weigh_after, request.reply_start, [token["token"] for token in tokens])
    if found is None:
        return None
    index, held = found
    likeliest = tokens[index].get("top_logprobs") or []
    return weights_after(held, ((token["token"], _probability(token["logprob"])) for token in likeliest))


def _probability(logprob: float) -> float:
    """A probability in [0, 1], even if a server's logarithm is NaN or positive."""
    return 0.0 if math.isnan(logprob) else math.exp(min(logprob, 0.0))
