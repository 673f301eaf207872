"""Settings of chat models and embedders: where they run, their limits and their prices."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from lf_longpo.config.base import Config, Positive
from lf_longpo.config.providers import PROVIDERS
from lf_longpo.config.request_settings import TEMPLATE_KWARGS, check_extra_body, check_extra_headers

# Default of max_concurrency with batch: true.
_BATCHED = 20_000
# Smaller batches are not worth the wait of up to a day.
_BATCHED_LEAST = 1000
# Providers without a Batch API in OpenAI's form.
_UNBATCHED = ("anthropic", "deepseek", "local", "openrouter")
# The backend of models that give a number and no text.
_REWARD_MODEL = "reward_model"
# Keys that say where a model runs.
_LOCATION = ("backend", "provider", "base_url")
# Keys that describe the model named by `model`.
_OF_THE_MODEL = ("context_window", "price")


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?|mps", name):
        raise ValueError("a device is auto, cpu, cuda, cuda:N or mps")
    return name


Device = Annotated[str, AfterValidator(_device)]
NumberFormat = Literal["auto", "float32", "bfloat16", "float16"]


class PriceConfig(Config):
    """The price of a model's tokens, per million, in any currency."""

    prompt: Annotated[float, Field(ge=0)]
    completion: Annotated[float, Field(ge=0)] = 0.0


class ServedConfig(Config):
    """A model that can run on a server."""

    backend: str
    provider: str | None = None
    model: str
    base_url: str | list[str] | None = None
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the API key. Default: the provider's variable, or this one."""
    price: PriceConfig | None = None
    """Price per million tokens, for the cost in the progress line and the summary, and for `max_cost`."""

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
            raise ValueError("base_url and provider need backend: openai; remove them or change the backend")
        if self.provider == "azure" and not self.base_url:
            raise ValueError(
                "provider: azure needs the address of your resource; set base_url, as in "
                "https://RESOURCE.openai.azure.com/openai/v1"
            )
        return self


class ChatConfig(ServedConfig):
    """A chat model and where it runs."""

    base_url: str | Annotated[list[str], Field(min_length=1)] | None = None
    """Address of the server, including /v1, or a list of servers of the same model. Calls go to a server with
    room; a server that is down gets no calls until it is back. Default: the provider's address, or
    OpenAI's."""
    backend: Literal["openai", "vllm", "transformers"] = "openai"
    """`openai`: any server with the OpenAI API (vLLM, SGLang, a paid service). `vllm`: a vLLM engine that the run
    starts and stops. `transformers`: in this process."""
    provider: Literal["openai", "azure", "openrouter", "zhipu", "anthropic", "deepseek", "local"] | None = None
    """A known server (`local`: port 8000 of this machine). It sets the defaults of base_url, api_key_env, send_seed,
    continues_replies and token_probabilities. `azure` has no default base_url: set
    `https://RESOURCE.openai.azure.com/openai/v1`."""
    api_version: str | None = None
    """Azure's version of the API, as in `2024-10-21`, for its API before v1. base_url is then
    `https://RESOURCE.openai.azure.com/openai`, and `model` the name of the deployment. Not needed with
    `/openai/v1`."""
    model: str
    """Name of the model on the server; for vllm and transformers a folder, a name on the hub, or the embedded
    `smollm2-135m`."""
    system: Annotated[str, Field(min_length=1)] | None = None
    """System prompt, the first message of every request. The pairs keep the policy's in the column `system`, so that
    training reads it, too. Default: none."""
    extra_body: dict[str, Any] | None = None
    """Further parameters of every request, also in batches, as in `{chat_template_kwargs: {enable_thinking: false}}`.
    vllm takes `chat_template_kwargs` and its own sampling parameters (`top_k`, `min_p`, `stop`, ...), transformers only
    `chat_template_kwargs`. Parameters that other settings set are refused."""
    extra_headers: dict[str, str] | None = None
    """HTTP headers of every request, as in `{X-Key: $MY_KEY}` (openai only). `$NAME` or `${NAME}` in a value stands
    for an environment variable, whose value is written to no file, log or error."""
    continues_replies: bool | None = None
    """Whether the server continues a reply that a request begins, as vLLM and SGLang do (openai only). Default: no for
    known providers, yes for other servers until one refuses it."""
    token_probabilities: bool | None = None
    """Whether the server reports token probabilities, which `rating: expected` needs (openai only). Default: no for
    anthropic and zhipu; otherwise the first reply decides."""
    adapter: str | None = None
    """Folder of a LoRA adapter to load (vllm and transformers; on a server, name the adapter in `model`)."""
    tensor_parallel_size: Positive = 1
    """GPUs for each copy of the model (vllm only)."""
    data_parallel_size: Positive = 1
    """Copies of the model (vllm only)."""
    batch: Annotated[bool, Field(strict=True)] = False
    """Whether requests go through the provider's Batch API (OpenAI's, or one in the same form such as Zhipu's): usually
    half the price, and results within a day. Requests that are ready together are uploaded together. Set `price` to the
    price of batches. `max_concurrency` limits the requests at the provider at once (default with batch: 20000)."""
    max_concurrency: Positive | Literal["auto"] = 64
    """Calls in flight at once, for each server; for vllm and transformers the largest batch. The limit is halved when a
    server refuses a fifth of the calls or they time out, and then grows again. `auto`: starts at 16 and grows while the
    server keeps its speed (openai only)."""
    requests_per_minute: Positive | None = None
    """Rate limit: most requests in any minute (openai only). It counts from each start of the run. Default: no
    limit."""
    tokens_per_minute: Positive | None = None
    """Rate limit: most prompt and new tokens in any minute (openai only), estimated as a third of the prompt's bytes
    plus `max_new_tokens`. Default: no limit."""
    device: Device = "auto"
    """Where the model computes: `cpu`, `cuda`, `cuda:1`, `mps`. `auto`: the first GPU, else the CPU (transformers
    only)."""
    dtype: NumberFormat = "auto"
    """Number format of weights and computation: `float32`, `bfloat16` or `float16`. `auto`: on a GPU the format of the
    model's files, on a CPU bfloat16; another one where the device has no bfloat16 (transformers only)."""
    context_window: Positive | None = None
    """Most tokens of prompt and reply together. Default: what the server reports or the model's files say."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds after which a call is cancelled and retried (openai only)."""
    max_retries: Annotated[int, Field(ge=0)] = 8
    """Retries after rate limits, time-outs, lost connections, server errors and broken replies (not transformers)."""
    send_seed: bool = True
    """Whether each call sends its own seed (transformers always uses one). Set it to false for servers that refuse a
    seed or crash on it (vLLM 0.32 on a CPU with chunked prefill); a repeated run then samples other replies."""
    trust_remote_code: bool = False
    """Whether code from the model's files may run on this machine."""
    thinking: Literal["strip", "keep", "auto"] = "auto"
    """What becomes of the policy's thoughts in pairs; scores and verdicts never see thoughts. `strip`: pairs hold the
    answers only. `keep`: thoughts stay before the answers, in the form of `pairs.template`, which must be a reasoning
    template of LLaMA-Factory. `auto`: `keep` where it is one, else `strip`. Under a reasoning template, LLaMA-Factory
    adds an empty thought to each response without a thought: with `strip`, the model learns to answer without
    thinking."""
    thinking_tokens: Annotated[int, Field(ge=0, strict=True)] = 0
    """Tokens for thoughts, in addition to the limit of new tokens of each call (`max_new_tokens`, or a judge's own
    limits, which leave no room for thoughts)."""

    @model_validator(mode="before")
    @classmethod
    def _needs_a_chat_model(cls, data: Any) -> Any:
        backends = get_args(cls.model_fields["backend"].annotation)
        if isinstance(data, dict) and data.get("backend") == _REWARD_MODEL and _REWARD_MODEL not in backends:
            raise ValueError(
                "backend: reward_model gives one number for a response, and a chat model is needed here (LongReward's "
                "four dimensions, verdicts and answers are text); set backend: openai, vllm or transformers. "
                "`longpo evaluate judge` measures reward models"
            )
        return data

    @model_validator(mode="before")
    @classmethod
    def _fill_batches(cls, data: Any) -> Any:
        return {"max_concurrency": _BATCHED, **data} if isinstance(data, dict) and data.get("batch") is True else data

    @model_validator(mode="after")
    def _backend_fields(self) -> "ChatConfig":
        if self.backend == "openai" and self.adapter:
            raise ValueError("adapter needs backend: transformers or vllm; for a server, name the adapter in model")
        copies = [name for name in ("tensor_parallel_size", "data_parallel_size") if getattr(self, name) > 1]
        if copies and self.backend != "vllm":
            raise ValueError(f"{copies[0]} needs backend: vllm; remove it or change the backend")
        check_in_process(self, "transformers", _REWARD_MODEL)
        quotas = [name for name in ("requests_per_minute", "tokens_per_minute") if getattr(self, name)]
        if self.backend != "openai" and (quotas or self.max_concurrency == "auto"):
            raise ValueError(f"{quotas[0] if quotas else 'max_concurrency: auto'} needs backend: openai; remove it")
        if self.batch and (self.backend != "openai" or self.provider in _UNBATCHED or len(self.base_urls) > 1):
            raise ValueError("batch needs one server with OpenAI's Batch API (OpenAI, Zhipu); remove it")
        if self.batch and (quotas or self.max_concurrency == "auto"):
            raise ValueError(f"{quotas[0] if quotas else 'max_concurrency: auto'} cannot be used with batch; remove it")
        if self.batch and self.calls_at_once < _BATCHED_LEAST:
            raise ValueError(
                f"max_concurrency: {self.max_concurrency} limits batches to so few requests; remove it or set "
                f"{_BATCHED_LEAST} or more"
            )
        self._check_requests()
        return self

    def _check_requests(self) -> None:
        if self.extra_body:
            check_extra_body(self.extra_body, self.backend)
        if self.extra_headers:
            check_extra_headers(self.extra_headers, self.backend)
        for name in ("api_version", "continues_replies", "token_probabilities"):
            if self.backend != "openai" and getattr(self, name) is not None:
                raise ValueError(f"{name} needs backend: openai; remove it or change the backend")
        if self.api_version and (self.batch or not self.base_url):
            raise ValueError(
                "api_version needs base_url, as in https://RESOURCE.openai.azure.com/openai, and has no batches; set "
                "base_url to https://RESOURCE.openai.azure.com/openai/v1 and remove api_version"
            )

    def completed(self, given: dict[str, Any]) -> dict[str, Any]:
        """The keys of a section with this default, where the user set the keys `given`.

        A section that says where the model runs replaces the default. Otherwise it keeps the default's keys; those that
        describe the default's model only together with that model.
        """
        if any(name in given and given[name] != getattr(self, name) for name in _LOCATION):
            return given
        completed = super().completed(given)
        if completed["model"] != self.model:
            completed = {name: completed[name] for name in completed if name in given or name not in _OF_THE_MODEL}
        return completed

    @property
    def request_settings(self) -> dict[str, Any]:
        """The settings, as far as they are set, that change what every request holds besides model and sampling."""
        settings = {"system": self.system, "extra_body": self.extra_body, "extra_headers": self.extra_headers}
        return {name: value for name, value in settings.items() if value}

    @property
    def template_arguments(self) -> dict[str, Any]:
        """Arguments of the chat template besides the messages."""
        arguments = (self.extra_body or {}).get(TEMPLATE_KWARGS)
        return arguments if isinstance(arguments, dict) else {}

    @property
    def base_urls(self) -> list[str | None]:
        """The addresses; None is the default address of the client."""
        return [*self.base_url] if isinstance(self.base_url, list) else [self.base_url]

    @property
    def calls_at_once(self) -> int:
        """The largest number of calls in flight, over all servers; with `auto` an upper limit."""
        copies = len(self.base_urls) * self.data_parallel_size
        return copies * (256 if self.max_concurrency == "auto" else self.max_concurrency)

    def questions_at_once(self, calls: int) -> int:
        """How many questions to work on at once if each question needs `calls` calls."""
        return max(1, self.calls_at_once // calls) if self.batch else self.calls_at_once


class JudgeModelConfig(ChatConfig):
    """A judge to measure: a chat model or a reward model, and where it runs."""

    # A judge may be more than a chat model.
    backend: Literal["openai", "vllm", "transformers", "reward_model"] = "openai"  # type: ignore[assignment]
    """`openai`: any server with the OpenAI API (vLLM, SGLang, a paid service). `vllm`: a vLLM engine that the run
    starts and stops. `transformers`: a chat model in this process. `reward_model`: a model for sequence
    classification with one output, in this process, in batches of `max_concurrency` rows."""

    @model_validator(mode="after")
    def _reward_model_fields(self) -> "JudgeModelConfig":
        if self.backend == _REWARD_MODEL and self.adapter:
            raise ValueError("adapter: a reward model takes none; merge the adapter into the model and remove it")
        if self.backend == _REWARD_MODEL and self.thinking_tokens:
            raise ValueError("thinking_tokens: a reward model writes no text; remove it")
        return self


class EmbedderConfig(ServedConfig):
    """The model that computes vectors of probes, statements and chunks."""

    base_url: str | None = None
    """Address of the server, including /v1. Default: the provider's address, or OpenAI's."""
    backend: Literal["sentence-transformers", "openai"] = "sentence-transformers"
    provider: Literal["openai", "azure", "zhipu", "local"] | None = None
    """A known server. It sets the defaults of backend, base_url and api_key_env. `azure` has no default base_url: set
    `https://RESOURCE.openai.azure.com/openai/v1`."""
    model: str = "minilm"
    """A folder, a name on the hub, or the embedded `minilm`; for openai the name of the model on the server."""
    device: Device = "auto"
    """Where the model computes: `cpu`, `cuda`, `cuda:1`, `mps`. `auto`: the GPU if it has enough free memory, else the
    CPU; a line reports which (sentence-transformers only)."""
    dtype: NumberFormat = "auto"
    """Number format of weights and computation: `float32`, `bfloat16` or `float16`. `auto`: that of the model's files
    (sentence-transformers only)."""
    batch_size: Positive = 32
    """Texts per call or forward pass."""
    max_concurrency: Positive = 16
    """Calls in flight at once (openai only)."""
    trust_remote_code: bool = False
    """Whether code from the model's files may run on this machine."""

    @model_validator(mode="after")
    def _backend_fields(self) -> "EmbedderConfig":
        if self.backend == "openai" and "model" not in self.model_fields_set:
            raise ValueError(
                "a server needs the name of its embedding model; set embedder.model (OpenAI: text-embedding-3-small, "
                "Zhipu: embedding-3)"
            )
        check_in_process(self, "sentence-transformers")
        return self


def check_in_process(model: "ChatConfig | EmbedderConfig", *backends: str) -> None:
    """Refuses `device` and `dtype` for a model that another backend than `backends` places.

    Raises:
        ValueError: for a validator to raise.
    """
    if model.backend not in backends:
        for name in ("device", "dtype"):
            if getattr(model, name) != "auto":
                raise ValueError(f"{name} goes with backend: {backends[0]}; remove it or change the backend")


def check_engines(*models: ChatConfig | None) -> None:
    """Refuses two different vLLM engines in one process.

    Raises:
        ValueError: for a validator to raise.
    """
    engines = {model.model_dump_json() for model in models if model and model.backend == "vllm"}
    if len(engines) > 1:
        raise ValueError("one process cannot run two vLLM engines; start a server for one of the models (vllm serve)")


def check_budget(max_cost: float | None, *models: ServedConfig | None) -> None:
    """Refuses `max_cost` if the cost of a model's calls is unknown.

    Raises:
        ValueError: for a validator to raise.
    """
    if max_cost is None:
        return
    if any(isinstance(model, ChatConfig) and model.batch for model in models):
        raise ValueError("max_cost: the cost of batches is only known when they end; remove it and use --estimate")
    for model in models:
        if model is None or model.backend != "openai" or model.provider == "local":
            continue  # no calls that cost money
        if model.price is None:
            raise ValueError(
                f"max_cost needs the price of {model.model}: set price.prompt and price.completion next to the model "
                "(0 for your own server)"
            )
