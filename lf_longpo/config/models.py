"""Chat models and embedders: where they run, and what they may take."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from lf_longpo.config.base import Config, Positive
from lf_longpo.config.providers import PROVIDERS

# Requests to have in batches where nobody says how many.
_BATCHED = 20_000


# Fewer would be a day's wait for next to nothing.
_BATCHED_LEAST = 1000


# Providers without a Batch API of OpenAI's form.
_UNBATCHED = ("anthropic", "deepseek", "local")


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?|mps", name):
        raise ValueError("a device is auto, cpu, cuda, cuda:N or mps")
    return name


Device = Annotated[str, AfterValidator(_device)]
NumberFormat = Literal["auto", "float32", "bfloat16", "float16"]


class PriceConfig(Config):
    """What a model's tokens cost, in any one currency, per million."""

    prompt: Annotated[float, Field(ge=0)]
    completion: Annotated[float, Field(ge=0)] = 0.0


class ServedConfig(Config):
    """A model that may stand behind a server."""

    backend: str

    base_url: str | None = None
    """Address of the server, with its /v1. Default: the provider's, or OpenAI's."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key. Default: the provider's, or this."""
    price: PriceConfig | None = None
    """Per million tokens; for the cost in progress and summary, and for `max_cost`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_provider(cls, data: Any) -> Any:
        name = data.get("provider") if isinstance(data, dict) else None
        if not isinstance(name, str) or name not in PROVIDERS:
            return data
        known = PROVIDERS[name]
        filled = {name: value for name, value in known.items() if name in cls.model_fields}
        return {"backend": "openai", **filled, **{name: value for name, value in data.items() if value is not None}}

    @model_validator(mode="after")
    def _address_needs_a_server(self) -> "ServedConfig":
        if self.backend != "openai" and self.base_url:
            raise ValueError("base_url and provider go with backend: openai; remove them or change the backend")
        return self


class ChatConfig(ServedConfig):
    """A chat model and where it runs."""

    base_url: str | Annotated[list[str], Field(min_length=1)] | None = None
    """Address of the server, with its /v1; or of several that serve the same model: calls go where there is room, and a
    server that is down is left alone until it is back. Default: the provider's, or OpenAI's."""

    backend: Literal["openai", "vllm", "transformers"] = "openai"
    """`openai`: any server that speaks the OpenAI API (vLLM, SGLang, a paid one). `vllm`: its engine, started and ended
    by the run. `transformers`: in this process."""
    provider: Literal["openai", "zhipu", "anthropic", "deepseek", "local"] | None = None
    """A known server (`local`: port 8000 of this machine): fills in base_url, api_key_env and send_seed where they are
    not set."""
    model: str
    """The name the server knows; or for vllm and transformers a folder, a hub name, or the embedded `smollm2-135m`."""
    adapter: str | None = None
    """Folder of a LoRA adapter to load on top (not openai, whose servers name their adapters in `model`)."""
    tensor_parallel_size: Positive = 1
    """GPUs that one copy of the model is spread over (vllm only)."""
    data_parallel_size: Positive = 1
    """Copies of the model (vllm only)."""
    batch: Annotated[bool, Field(strict=True)] = False
    """Whether requests go through the provider's Batch API (OpenAI's, or one of its form such as Zhipu's): mostly half
    the price, an answer within a day. Those that arrive together are handed in together; set `price` to that of
    batches and `max_concurrency` to the requests to have there at once (20000 where it is not set)."""
    max_concurrency: Positive | Literal["auto"] = 64
    """Calls in flight at once, at each server; for vllm and transformers the most rows in one batch. It is halved where
    a server refuses a fifth of them or lets them time out, and grows back. `auto`: from 16 up while the server keeps
    its speed (openai only)."""
    requests_per_minute: Positive | None = None
    """The provider's limit, not exceeded in any minute of one start (openai only). Default: none."""
    tokens_per_minute: Positive | None = None
    """Likewise of prompt and new tokens, taken to be a third of the prompt's bytes and all of `max_new_tokens`."""
    device: Device = "auto"
    """Where the model computes: `cpu`, `cuda`, `cuda:1`, `mps`. `auto`: the first GPU, else the CPU (transformers
    only)."""
    dtype: NumberFormat = "auto"
    """Number format of weights and computation: `float32`, `bfloat16` or `float16`. `auto`: on a GPU the format of the
    model's files, on a CPU bfloat16; another one where the device has no bfloat16 (transformers only)."""
    context_window: Positive | None = None
    """Prompt and new tokens together. Default: what the server or the model's files say."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds after which a call is given up and tried again (openai only)."""
    max_retries: Annotated[int, Field(ge=0)] = 8
    """Tries after the first on rate limits, time-outs, lost connections, server errors and broken replies (not
    transformers)."""
    send_seed: bool = True
    """Whether each call carries a seed of its own (not transformers, where it always does). Off for servers that refuse
    or, as vLLM 0.32 on a CPU with chunked prefill, do not survive it; repeated runs then sample anew."""
    trust_remote_code: bool = False
    """Whether code that comes with the model's files may run here."""

    @model_validator(mode="before")
    @classmethod
    def _fill_batches(cls, data: Any) -> Any:
        return {"max_concurrency": _BATCHED, **data} if isinstance(data, dict) and data.get("batch") is True else data

    @model_validator(mode="after")
    def _backend_fields(self) -> "ChatConfig":
        if self.backend == "openai" and self.adapter:
            raise ValueError("adapter goes with backend: transformers or vllm; a server names its adapters in model")
        copies = [name for name in ("tensor_parallel_size", "data_parallel_size") if getattr(self, name) > 1]
        if copies and self.backend != "vllm":
            raise ValueError(f"{copies[0]} goes with backend: vllm")
        check_in_process(self, "transformers")
        quotas = [name for name in ("requests_per_minute", "tokens_per_minute") if getattr(self, name)]
        if self.backend != "openai" and (quotas or self.max_concurrency == "auto"):
            raise ValueError(f"{quotas[0] if quotas else 'max_concurrency: auto'} goes with backend: openai")
        if self.batch and (self.backend != "openai" or self.provider in _UNBATCHED or len(self.base_urls) > 1):
            raise ValueError("batch goes with one server that has OpenAI's Batch API (OpenAI, Zhipu); remove it")
        if self.batch and (quotas or self.max_concurrency == "auto"):
            raise ValueError(f"{quotas[0] if quotas else 'max_concurrency: auto'} does not go with batch; remove it")
        if self.batch and self.calls_at_once < _BATCHED_LEAST:
            raise ValueError(f"max_concurrency: {self.max_concurrency} makes batches of no more requests; remove it")
        return self

    @property
    def base_urls(self) -> list[str | None]:
        """The addresses, None for the client's own."""
        return self.base_url if isinstance(self.base_url, list) else [self.base_url]

    @property
    def calls_at_once(self) -> int:
        """At most, over all servers, as far as it is known beforehand."""
        copies = len(self.base_urls) * self.data_parallel_size
        return copies * (256 if self.max_concurrency == "auto" else self.max_concurrency)

    def questions_at_once(self, calls: int) -> int:
        """How many to work on where each has so many calls, which in batches are all there together."""
        return max(1, self.calls_at_once // calls) if self.batch else self.calls_at_once


class EmbedderConfig(ServedConfig):
    """The model that turns probes, statements and chunks into vectors."""

    backend: Literal["sentence-transformers", "openai"] = "sentence-transformers"
    provider: Literal["openai", "zhipu", "local"] | None = None
    """A known server: fills in backend, base_url and api_key_env where they are not set."""
    model: str = "minilm"
    """A folder, a hub name, or the embedded `minilm`; for openai the name the server knows."""
    device: Device = "auto"
    """Where the model computes: `cpu`, `cuda`, `cuda:1`, `mps`. `auto`: the GPU if it has enough free memory, else the
    CPU; a line reports which (sentence-transformers only)."""
    dtype: NumberFormat = "auto"
    """Number format of weights and computation: `float32`, `bfloat16` or `float16`. `auto`: that of the model's files
    (sentence-transformers only)."""
    batch_size: Positive = 32
    """Texts a call or a forward pass."""
    max_concurrency: Positive = 16
    """Calls in flight at once (openai only)."""
    trust_remote_code: bool = False
    """Whether code that comes with the model's files may run here."""

    @model_validator(mode="after")
    def _backend_fields(self) -> "EmbedderConfig":
        check_in_process(self, "sentence-transformers")
        return self


def check_in_process(model: "ChatConfig | EmbedderConfig", backend: str) -> None:
    """Refuses `device` and `dtype` for a model that another backend places.

    Raises:
        ValueError: for a validator to raise.
    """
    if model.backend != backend:
        for name in ("device", "dtype"):
            if getattr(model, name) != "auto":
                raise ValueError(f"{name} goes with backend: {backend}; remove it or change the backend")


def check_engines(*models: ChatConfig | None) -> None:
    engines = {model.model_dump_json() for model in models if model and model.backend == "vllm"}
    if len(engines) > 1:
        raise ValueError("two models cannot both be engines of this process; serve one (scripts/serve_vllm.sh)")


def check_budget(max_cost: float | None, *models: ServedConfig | None) -> None:
    """Refuses a bound on the cost where the cost of a model's calls is not known.

    Raises:
        ValueError: for a validator to raise.
    """
    if max_cost is not None and any(isinstance(model, ChatConfig) and model.batch for model in models):
        raise ValueError("max_cost: what batches will cost is known a day later; remove it, and see --estimate")
    for model in models:
        own = model is None or model.backend != "openai" or model.provider == "local"
        if max_cost is not None and not own and model.price is None:
            raise ValueError(
                f"max_cost needs the price of {model.model}: set price.prompt and price.completion beside it (0 for a "
                "server of your own)"
            )
