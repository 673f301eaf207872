"""Known providers: their addresses and the environment variables of their API keys."""

from typing import Any
from urllib.parse import urlsplit

# Default address of the official client.
OPENAI_URL = "https://api.openai.com/v1"

# Each provider has the OpenAI API at this address, and these defaults of a model's settings. `send_seed` is off if its
# documentation has no `seed`, `token_probabilities` if it has no `logprobs`. Hosted providers start a new reply where a
# request begins one, or refuse such a request.
PROVIDERS: dict[str, dict[str, Any]] = {
    "openai": {"base_url": OPENAI_URL, "api_key_env": "OPENAI_API_KEY"},
    "azure": {"api_key_env": "AZURE_OPENAI_API_KEY", "continues_replies": False},
    "openrouter": {
        "base_url": "https://openrouter.ai/api/v1",
        "api_key_env": "OPENROUTER_API_KEY",
        "continues_replies": False,
    },
    "zhipu": {
        "base_url": "https://open.bigmodel.cn/api/paas/v4",
        "api_key_env": "ZHIPUAI_API_KEY",
        "send_seed": False,
        "continues_replies": False,
        "token_probabilities": False,
    },
    "anthropic": {
        "base_url": "https://api.anthropic.com/v1",
        "api_key_env": "ANTHROPIC_API_KEY",
        "send_seed": False,
        "continues_replies": False,
        "token_probabilities": False,
    },
    "deepseek": {
        "base_url": "https://api.deepseek.com/v1",
        "api_key_env": "DEEPSEEK_API_KEY",
        "send_seed": False,
        "continues_replies": False,
    },
    "local": {"base_url": "http://127.0.0.1:8000/v1", "api_key_env": "LOCAL_API_KEY"},
}


# Azure gives every resource a host of its own.
_AZURE_DOMAINS = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")


def provider_at(base_url: str | None) -> str | None:
    """The known provider that an address belongs to by its host; None for any other server.

    Args:
        base_url: the address; None is OpenAI's. Case, port, path and a slash at the end make no difference.
    """
    host = _host(base_url or OPENAI_URL)
    return "azure" if host.endswith(_AZURE_DOMAINS) else _HOSTS.get(host)


def is_hosted(base_url: str | None) -> bool:
    """Whether the server at this address is a known provider's own (None is OpenAI's)."""
    return provider_at(base_url) is not None


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # not an address; the client reports it
        return ""


_HOSTS = {
    _host(known["base_url"]): name for name, known in PROVIDERS.items() if "base_url" in known and name != "local"
}
