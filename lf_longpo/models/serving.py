"""vLLM's server for a section of a generation config; scripts/serve_vllm.sh starts it."""

import os
import sys
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from lf_longpo.config import ChatConfig, GenerateConfig
from lf_longpo.config.loading import load_config
from lf_longpo.errors import UserError


def server_arguments(config: ChatConfig) -> list[str]:
    """Arguments of `vllm serve` for the server that the configuration expects.

    Args:
        config: with backend openai and an address; of several the first.

    Raises:
        UserError: it names no address.
    """
    address = urlsplit(config.base_urls[0] or "")
    if config.backend != "openai" or not address.hostname:
        raise UserError("base_url names no server; set it, as in http://127.0.0.1:8000/v1")
    arguments = ["--model", config.model, "--host", address.hostname, "--port", str(_port(address))]
    arguments += [
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        "--max-num-seqs",
        str(config.calls_at_once // len(config.base_urls)),
    ]
    # Models' own defaults (top-k, repetition penalty) would change what is asked for.
    arguments += ["--generation-config", "vllm"]
    if config.context_window:
        arguments += ["--max-model-len", str(config.context_window)]
    return arguments


def _port(address: SplitResult) -> int:
    """The port that a client of the address connects to."""
    try:
        return address.port or (443 if address.scheme == "https" else 80)
    except ValueError as error:
        raise UserError(f"base_url {address.geturl()!r} is no address: {error}") from None


def serve(path: str, section: str, python: str, further: Sequence[str]) -> None:
    """Becomes vLLM's server for a section of a configuration.

    Args:
        path: of the configuration.
        section: `policy` or `judge`.
        python: the Python that has vLLM.
        further: arguments for vLLM itself.

    Raises:
        UserError: the section has no model on a server.
    """
    config = load_config(GenerateConfig, path)
    model = getattr(config, section, None)
    if not isinstance(model, ChatConfig):
        raise UserError(f"{path}: {section!r} is no section with a chat model; name policy or judge")
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
