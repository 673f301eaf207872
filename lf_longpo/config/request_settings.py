"""What users may add to a model's requests: parameters of the body, and headers."""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

TEMPLATE_KWARGS = "chat_template_kwargs"
"""Parameter with arguments of the chat template, as in vLLM and SGLang: `{enable_thinking: false}`."""

_SAMPLING = "set it in the sampling settings instead"
_ALWAYS_SET = "every request sets it"
# Parameters that other settings set, with the fix.
_SET_ELSEWHERE = {
    "model": "set model instead",
    "messages": "set system instead",
    "temperature": _SAMPLING,
    "top_p": _SAMPLING,
    "presence_penalty": _SAMPLING,
    "max_tokens": "set max_new_tokens instead",
    "max_completion_tokens": "set max_new_tokens instead",
    "seed": "set send_seed and the seed of the run instead",
    "logprobs": "set rating instead",
    "top_logprobs": "set rating instead",
    "continue_final_message": "set continues_replies instead",
    "add_generation_prompt": "set continues_replies instead",
    "stream": "replies are read as a whole",
    "n": "each request asks for one reply",
}
# Arguments of the chat template that every request sets.
_TEMPLATE_ARGUMENTS = {"conversation", "tokenize", "add_generation_prompt", "continue_final_message"}
# Parameters of vLLM's sampling that no other setting has.
_VLLM_SAMPLING = {
    "top_k",
    "min_p",
    "frequency_penalty",
    "repetition_penalty",
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "bad_words",
    "allowed_token_ids",
    "min_tokens",
    "ignore_eos",
}
_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def check_extra_body(body: Mapping[str, Any], backend: str) -> None:
    """Refuses parameters that other settings set, or that the backend does not know.

    Raises:
        ValueError: for a validator to raise.
    """
    if backend == "vllm":
        known = {TEMPLATE_KWARGS, *_VLLM_SAMPLING}
    else:
        known = {TEMPLATE_KWARGS} if backend in ("transformers", "reward_model") else set(body)
    for name in body:
        if name in _SET_ELSEWHERE:
            raise ValueError(f"extra_body.{name}: {_SET_ELSEWHERE[name]}; remove it from extra_body")
        if name not in known:
            raise ValueError(
                f"extra_body.{name}: backend {backend} has no such parameter; remove it. It takes "
                f"{', '.join(sorted(known))}"
            )
    try:
        json.dumps(body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"extra_body cannot be sent as JSON ({error}); use texts, numbers, lists and mappings"
        ) from None
    arguments = body.get(TEMPLATE_KWARGS, {})
    if not isinstance(arguments, dict):
        raise ValueError(f"extra_body.{TEMPLATE_KWARGS} is not a mapping; write it as {{enable_thinking: false}}")
    if ours := sorted(_TEMPLATE_ARGUMENTS & set(arguments)):
        raise ValueError(f"extra_body.{TEMPLATE_KWARGS}.{ours[0]}: {_ALWAYS_SET}; remove it from extra_body")


def check_extra_headers(headers: Mapping[str, str], backend: str) -> None:
    """Refuses headers that cannot be sent.

    Raises:
        ValueError: for a validator to raise.
    """
    if backend != "openai":
        raise ValueError("extra_headers needs backend: openai; remove it or change the backend")
    for name in headers:
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"extra_headers: {name!r} is not a header's name; write it as in X-Key: $MY_KEY")


def filled_headers(headers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Headers with the values of the environment variables that they name.

    Args:
        headers: by name; `$NAME` and `${NAME}` in a value stand for an environment variable.

    Returns:
        The headers as they are sent, and the values of the variables: the text that names it by value.

    Raises:
        ValueError: a variable is not set, or a value cannot be sent. The message does not quote values of variables.
    """
    secrets: dict[str, str] = {}

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        secret = os.environ.get(name)
        if not secret:
            raise ValueError(f"the environment variable {name} is not set; set it, or remove it from extra_headers")
        secrets[secret] = found[0]
        return secret

    filled = {}
    for name, text in headers.items():
        try:
            filled[name] = _VARIABLE.sub(value, text)
        except ValueError as error:
            raise ValueError(f"extra_headers.{name}: {error}") from None
        if not filled[name].isascii() or not filled[name].isprintable():
            raise ValueError(
                f"extra_headers.{name}: {text!r} holds a character that headers cannot have, such as a line break; "
                "remove it from the value or the environment variable"
            )
    return filled, secrets
