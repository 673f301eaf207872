"""Known providers: their addresses and the environment variables of their API keys."""

from typing import Any

# Default address of the official client.
OPENAI_URL = "https://api.openai.com/v1"

# Each provider has the OpenAI API at this address. `send_seed` is off if its documentation has no `seed`.
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


def is_hosted(base_url: str | None) -> bool:
    """Whether this is the address of a known provider (None: OpenAI). A server on this machine is not."""
    return (base_url or OPENAI_URL) in {known["base_url"] for name, known in PROVIDERS.items() if name != "local"}
