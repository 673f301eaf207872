"""Where the providers that people judge and embed with are reached, and where their keys are looked for."""

from typing import Any
from urllib.parse import urlsplit

# The API of the official client's default address.
OPENAI_URL = "https://api.openai.com/v1"

# Each speaks the OpenAI API at this address. `send_seed` is off where the provider documents no `seed`.
PROVIDERS: dict[str, dict[str, Any]] = {
    "openai": {"base_url": OPENAI_URL, "api_key_env": "OPENAI_API_KEY"},
    "zhipu": {
        "base_url": "https://open.bigmodel.cn/api/paas/v4",
        "api_key_env": "ZHIPUAI_API_KEY",
        "send_seed": False,
    },
    "anthropic": {
        "base_url": "https://api.anthropic.com/v1",
        "api_key_env": "ANTHROPIC_API_KEY",
        "send_seed": False,
    },
    "deepseek": {
        "base_url": "https://api.deepseek.com/v1",
        "api_key_env": "DEEPSEEK_API_KEY",
        "send_seed": False,
    },
    "local": {"base_url": "http://127.0.0.1:8000/v1", "api_key_env": "LOCAL_API_KEY"},
}


# Azure gives every resource a host of its own.
_AZURE_DOMAINS = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")


def provider_at(base_url: str | None) -> str | None:
    """The known provider, or `azure`, that an address belongs to by its host; None for any other server.

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


_HOSTS = {_host(known["base_url"]): name for name, known in PROVIDERS.items() if name != "local"}
