"""Settings of `longpo chat`."""

from typing import Any, Literal

from pydantic import model_validator

from lf_longpo.config.models import ChatConfig
from lf_longpo.config.sampling import GreedySampling


class DocumentChatConfig(ChatConfig):
    """`longpo chat`: a chat model that answers questions about a document in the terminal. The settings of the model
    have no section: `base_url=...`, not `model.base_url=...`."""

    backend: Literal["openai", "vllm", "transformers"] = "transformers"
    """`transformers`: in this process. `openai`: any server with the OpenAI API (vLLM, SGLang, a paid service); the
    default with `base_url` or `provider`. `vllm`: a vLLM engine in this process."""
    model: str
    """The model. Default: MODEL of the command line, or the base model that its adapter names."""
    adapter: str | None = None
    """Folder of a LoRA adapter. Default: MODEL of the command line if it is an adapter."""
    tokenizer: str | None = None
    """Counts prompt tokens. Default: the model's tokenizer. Set it if a server knows the model by another name."""
    sampling: GreedySampling = GreedySampling()
    """Sampling of answers. Default: greedy, at most 1024 new tokens."""

    @model_validator(mode="before")
    @classmethod
    def _an_address_is_a_server(cls, data: Any) -> Any:
        return {"backend": "openai", **data} if isinstance(data, dict) and data.get("base_url") else data

    @model_validator(mode="after")
    def _answers_at_once(self) -> "DocumentChatConfig":
        if self.batch:
            raise ValueError("batch: a batch takes up to a day; remove it")
        return self
