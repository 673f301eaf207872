"""Starts vLLM's server for a section of a generation config; see scripts/serve_vllm.sh."""

import os
import sys
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from lf_longpo.config import ChatConfig, GenerateConfig
from lf_longpo.config.loading import load_config
from lf_longpo.errors import UserError


def server_arguments(config: ChatConfig) -> list[str]:
    """Arguments of `vllm serve` for the server of a model's configuration.

    Args:
        config: with backend openai and an address; the first one counts.

    Raises:
        UserError: the configuration names no address.
    """
    address = urlsplit(config.base_urls[0] or "")
    if config.backend != "openai" or not address.hostname:
        raise UserError("base_url names no server; set base_url, as in http://127.0.0.1:8000/v1")
    arguments = ["--model", config.model, "--host", address.hostname, "--port", str(_port(address))]
    arguments += [
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        "--max-num-seqs",
        str(config.calls_at_once // len(config.base_urls)),
    ]
    # The model's own defaults (top-k, repetition penalty) would change the sampling settings.
    arguments += ["--generation-config", "vllm"]
    if config.context_window:
        arguments += ["--max-model-len", str(config.context_window)]
    return arguments


def _port(address: SplitResult) -> int:
    """The port of an address, or the default of its scheme."""
    try:
        return address.port or (443 if address.scheme == "https" else 80)
    except ValueError as error:
        raise UserError(
            f"base_url {address.geturl()!r} is not an address ({error}); fix it, as in http://127.0.0.1:8000/v1"
        ) from None


def serve(path: str, section: str, python: str, further: Sequence[str]) -> None:
    """Replaces this process by vLLM's server for a section of a configuration.

    Args:
        path: the configuration file.
        section: `policy` or `judge`.
        python: the Python that has vLLM.
        further: more arguments for vLLM.

    Raises:
        UserError: the section names no model on a server.
    """
    config = load_config(GenerateConfig, path)
    model = getattr(config, section, None)
    if not isinstance(model, ChatConfig):
        raise UserError(f"{path}: {section!r} is not a section with a chat model; name policy or judge")
    command = [python, "-m", "vllm.entrypoints.openai.api_server", *server_arguments(model), *further]
    os.execvp(python, command)


def _main(python: str, path: str, *words: str) -> None:
    section, further = "policy", list(words)
    if further and not further[0].startswith("-"):
        section = further.pop(0)
    serve(path, section, python, further)


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
