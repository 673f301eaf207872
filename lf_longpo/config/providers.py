"""Where the providers that people judge and embed with are reached, and where their keys are looked for."""

from typing import Any

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


def is_hosted(base_url: str | None) -> bool:
    """Whether a known provider's own server stands at this address (none means OpenAI's)."""
    return (base_url or OPENAI_URL) in {known["base_url"] for name, known in PROVIDERS.items() if name != "local"}
