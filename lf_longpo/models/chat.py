"""The one small protocol that every chat model is used through.

A backend takes a request and gives a completion, or raises `CallFailed` (this call is lost) or `UserError` (no call
can work until somebody mends something). Retries are the backend's business; remembering results is not (calls.py).
"""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from lf_longpo.config import ChatConfig, SamplingConfig


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One user message and how to answer it. The same request to a deterministic model gives the same completion."""

    prompt: str
    sampling: SamplingConfig
    seed: int

    def identity(self) -> dict[str, Any]:
        """All that determines the completion, as plain data."""
        return {"prompt": self.prompt, "sampling": self.sampling.model_dump(), "seed": self.seed}


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back, and what it cost in tokens."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str

    def plain(self) -> dict[str, Any]:
        """The completion as plain data."""
        return asdict(self)


class ChatModel(Protocol):
    """A chat model, wherever it runs."""

    async def start(self) -> int | None:
        """Gets ready, and tells the context window in tokens where it is known.

        Raises:
            UserError: the model cannot be used (no server, key rejected, no such model).
        """
        ...

    async def complete(self, request: ChatRequest) -> Completion:
        """Answers one request.

        Raises:
            CallFailed: this call is lost for good.
            UserError: no call can work.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections and memory."""
        ...


def make_chat(config: ChatConfig) -> ChatModel:
    """The backend that `config` names, not started yet."""
    if config.backend == "openai":
        from lf_longpo.models.openai_chat import OpenAIChat

        return OpenAIChat(config)
    from lf_longpo.models.transformers_chat import TransformersChat

    return TransformersChat(config)
