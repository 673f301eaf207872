"""Typed configuration: what can be set, what it means and what it is when nobody sets it.

Every field carries its documentation right under it. Nothing here reads a file or the environment or opens a model; a
configuration that is valid may still name a file or a server that is not there.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lf_longpo.providers import PROVIDERS

Positive = Annotated[int, Field(ge=1, strict=True)]

# Requests to have in batches where nobody says how many.
_BATCHED = 20_000
# Fewer would be a day's wait for next to nothing.
_BATCHED_LEAST = 1000
# Providers without a Batch API of OpenAI's form.
_UNBATCHED = ("anthropic", "deepseek", "local")


class Config(BaseModel):
    """What all configurations share: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


class SamplingConfig(Config):
    """How the policy samples; the defaults are those of the published LongMab-PO code."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 1.0
    """Subtracted from the logit of every token that the output already has."""
    max_new_tokens: Positive = 1024


class ResponseSampling(SamplingConfig):
    """How responses to be judged are sampled (LongReward, arXiv 2410.21252)."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Subtracted from the logit of every token that the output already has."""


class GreedySampling(ResponseSampling):
    """How models are evaluated unless told otherwise."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy."""


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
    batch_size: Positive = 32
    """Texts a call or a forward pass."""
    max_concurrency: Positive = 16
    """Calls in flight at once (openai only)."""
    trust_remote_code: bool = False
    """Whether code that comes with the model's files may run here."""


class LongMabConfig(Config):
    """The bandit (LongMab-PO, arXiv 2508.13993); the defaults are the paper's."""

    chunk_size: Positive = 1500
    """Most tokens a chunk (an arm) has. Smaller: more arms, finer credit, more rounds needed."""
    chunk_overlap: Annotated[int, Field(ge=0)] = 2
    """Sentences that a chunk repeats from the one before."""
    rounds: Positive = 30
    """Roll-outs a question. Calls and time grow with it."""
    top_k: Positive = 4
    """Chunks that make up the context of one roll-out."""
    init: Literal["probe_similarity", "query_similarity", "random"] = "probe_similarity"
    """An arm's first value: similarity of its chunk to the probe, to the question, or drawn from [0, 1)."""
    selection: Literal["ucb", "random"] = "ucb"
    """How a round's chunks are picked: by the bandit, or drawn, which it has to beat. With a `top_k` that is no less
    than the chunks, drawing is plain sampling over the whole context."""
    prompt: str = "reasoning"
    """Roll-out and training prompt: `reasoning` (the paper's form), `brief` (small models), or a text file's path."""
    probe_prompt: str = "probe"
    """Probe prompt: `probe`, `brief_probe` (small models), or a text file's path."""
    answer_form: Literal["published", "tolerant"] = "published"
    """How the answer is found in an output. `published`: the paper's rule, after `Answer:`, `The answer is:` or `Final
    answer is:`. `tolerant`: where that finds none, also after `**Answer**:`, `### Answer`, `Answer：` and `答案：`."""
    sampling: SamplingConfig = SamplingConfig()
    """For probes and roll-outs."""


class VerdictConfig(Config):
    """How a judge's verdict is read."""

    rating: Literal["parsed", "expected"] | None = None
    """`parsed`: the number the judge writes. `expected`: the mean of its distribution over all ratings, from token
    probabilities (a local model, vLLM or SGLang; hosted ones as far as they tell them). Default: expected for the
    embedded model, parsed for others."""
    analysis_tokens: Annotated[int, Field(ge=0, strict=True)] = 512
    """Most tokens of an analysis with its verdict. 0, with rating: expected: the rating is read at once."""

    @model_validator(mode="after")
    def _verdict_has_room(self) -> "VerdictConfig":
        if self.analysis_tokens == 0 and self.rating == "parsed":
            raise ValueError("analysis_tokens: 0 leaves a parsed verdict no room; set rating: expected or raise it")
        return self


class JudgingConfig(VerdictConfig):
    """How a judge scores a response (LongReward, arXiv 2410.21252); the defaults are the paper's."""

    chunk_size: Positive = 4096
    """Tokens of the part of a context from which the judge extracts what is relevant. Smaller: more calls, closer
    reading."""
    evidence_chunk_size: Positive = 128
    """Tokens of a passage that a statement is checked against."""
    evidence_top_k: Positive = 5
    """Passages a statement is checked against."""
    prompts: str | None = None
    """The judge's prompts: `full` (definitions and examples), `brief` (small models), or a folder whose files stand in
    for those of `full` that have the same name. Default: brief for the embedded model, full for others."""


class LongRewardConfig(JudgingConfig):
    """Sampling and pairing around the judge (LongReward, arXiv 2410.21252); the defaults are the paper's."""

    num_samples: Positive = 10
    """Responses a question. Cost and time grow with it."""
    sampling: ResponseSampling = ResponseSampling()
    """For the responses."""
    min_responses: Annotated[int, Field(ge=2, strict=True)] = 5
    """A question with fewer scored responses gives no pair."""


class PairsConfig(Config):
    """How roll-outs become training pairs."""

    template: str
    """LLaMA-Factory's template of the model to be trained (llama3, qwen, glm4, smollm2, ...)."""
    cutoff_len: Positive = 8500
    """The training recipe's cutoff_len: the context is cut in its middle until prompt and response fit."""
    allow_truncated: Annotated[bool, Field(strict=True)] = False
    """Whether responses that were cut off at `max_new_tokens` may become chosen or rejected. A model that is trained on
    such responses learns not to end."""


class GenerateConfig(Config):
    """`longpo generate`: questions to preference pairs to a registered data set."""

    method: Literal["longmab", "longreward"]
    input: str
    """Questions: a .jsonl, .json, .parquet or .csv file, or a data set on the Hugging Face hub."""
    input_split: str = "train"
    """Split of a hub data set."""
    start: Annotated[int, Field(ge=0, strict=True)] = 0
    """Questions of the input to work on: from this one on, counted from 0 ..."""
    end: Positive | None = None
    """... up to this one, which is left out. Default: to the last."""
    responses: str | None = None
    """Sampled responses, as {"idx": "<question's id>-<sample>", "query", "answer"} lines; none are sampled then
    (longreward only)."""
    output_dir: Path
    """Everything the run makes and needs to carry on."""
    dataset_dir: Path = Path("dataset_info")
    """LLaMA-Factory's data folder, where the pairs are registered."""
    dataset_name: str
    """The name that a training recipe's `dataset` uses."""
    policy: ChatConfig | None = None
    """The model that writes probes, roll-outs and responses, best the one that will be trained. Needed unless
    `responses` are given."""
    judge: ChatConfig | None = None
    """The model that scores responses (longreward only)."""
    embedder: EmbedderConfig = EmbedderConfig()
    tokenizer: str | None = None
    """Counts tokens for chunks and lengths: that of the model to be trained. Default: the policy's model."""
    longmab: LongMabConfig = LongMabConfig()
    longreward: LongRewardConfig = LongRewardConfig()
    pairs: PairsConfig
    seed: int = 42
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """The run stops before its calls cost more than this, at the models' `price`; it can be carried on."""
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The run exits with 1 when a larger share of the questions failed."""

    @model_validator(mode="after")
    def _range_holds_something(self) -> "GenerateConfig":
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} leaves no question behind start {self.start}; end itself is left out")
        return self

    @model_validator(mode="after")
    def _fields_of_the_method(self) -> "GenerateConfig":
        others = {"longmab": ("longreward", "judge", "responses"), "longreward": ("longmab",)}[self.method]
        strangers = [name for name in others if name in self.model_fields_set and getattr(self, name) is not None]
        # A resolved config.yaml holds every section; only one that says something else than its defaults is a mistake.
        defaults = {name: type(self).model_fields[name].default for name in strangers}
        if wrong := [name for name in strangers if getattr(self, name) != defaults[name]]:
            raise ValueError(f"{', '.join(wrong)}: not for method: {self.method}; remove it or change the method")
        if self.method == "longreward":
            if self.judge is None:
                raise ValueError("method: longreward needs a judge; add the section judge")
            if self.policy is None and self.responses is None:
                raise ValueError("a policy is needed to sample responses; add the section policy, or set responses")
            if self.policy is None and self.tokenizer is None:
                raise ValueError("without a policy, tokenizer must name the model to be trained")
            if self.responses is None and self.longreward.num_samples < self.longreward.min_responses:
                raise ValueError("longreward.num_samples is below longreward.min_responses: no question gives a pair")
        elif self.policy is None:
            raise ValueError("method: longmab needs a policy; add the section policy")
        elif self.policy.batch:
            raise ValueError("policy.batch: each roll-out waits for the one before it, a day in a batch; remove it")
        _check_engines(self.policy, self.judge)
        check_budget(self.max_cost, None if self.responses else self.policy, self.judge, self.embedder)
        return self


class ScoreConfig(Config):
    """`longpo score`: scores for responses that exist already."""

    responses: str
    """Responses, as {"idx": "<context's idx>-<sample>", "query", "answer"} lines, or with a `context` of their own."""
    contexts: str | None = None
    """Rows with `idx`, `query` and `context` that the responses refer to. Default: each response has its context."""
    output_dir: Path
    """Scores and what is needed to carry on. Default: runs/score_ and the name of the responses' file."""
    judge: ChatConfig = ChatConfig(backend="transformers", model="smollm2-135m", max_concurrency=16)
    embedder: EmbedderConfig = EmbedderConfig()
    tokenizer: str | None = None
    """Counts tokens for chunks and lengths. Default: the judge's model."""
    longreward: JudgingConfig = JudgingConfig()
    seed: int = 42
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """The run stops before its calls cost more than this, at the models' `price`; it can be carried on."""
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The run exits with 1 when a larger share of the questions failed."""

    @model_validator(mode="before")
    @classmethod
    def _name_the_folder(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("responses"), str):
            return {"output_dir": f"runs/score_{Path(data['responses']).stem}", **data}
        return data

    @model_validator(mode="after")
    def _budget_has_prices(self) -> "ScoreConfig":
        check_budget(self.max_cost, self.judge, self.embedder)
        return self


class EvaluateConfig(Config):
    """What all evaluations share."""

    input: str | Annotated[list[str], Field(min_length=1)]
    """Questions: a .jsonl, .json, .parquet or .csv file, a folder of such, or a data set on the hub (`org/name`,
    `org/name:subset`); or a list of these. Each is a set of its own."""
    input_split: str = "test"
    """Split of a hub data set."""
    output_dir: Path
    """Predictions, results and what is needed to carry on."""
    tokenizer: str | None = None
    """Counts prompt tokens. Default: the model."""
    prompt: str = "plain"
    """How models are asked: `plain` (the context, then the question), `reasoning`, `brief`, or a text file's path."""
    samples: Positive = 1
    """Answers a question; scores are their means. More than one needs a temperature above 0."""
    sampling: GreedySampling = GreedySampling()
    """Greedy by default, 1024 new tokens."""
    max_prompt_tokens: Positive = 64_000
    """Longer prompts lose the middle of their context."""
    baseline: Path | None = None
    """The output_dir of an earlier evaluation, shown beside this one."""
    seed: int = 42
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """The run stops before its calls cost more than this, at the models' `price`; it can be carried on."""
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The run exits with 1 when a larger share of the questions failed or could not be judged."""

    @model_validator(mode="after")
    def _samples_differ(self) -> "EvaluateConfig":
        if self.samples > 1 and self.sampling.temperature == 0:
            raise ValueError("samples above 1 at temperature 0 would all be the same; set sampling.temperature")
        return self

    @model_validator(mode="after")
    def _models_fit(self) -> "EvaluateConfig":
        models = [model for name in type(self).model_fields if isinstance(model := getattr(self, name), ChatConfig)]
        _check_engines(*models)
        check_budget(self.max_cost, *models)
        return self


class LongQAConfig(EvaluateConfig):
    """`longpo evaluate longqa`: answers to long-context questions, scored by EM, F1 and SubEM."""

    input_split: str = "train"
    """Split of a hub data set."""
    model: ChatConfig
    prompt: str = "reasoning"
    """How the model is asked: `reasoning` (the paper's form), `brief`, or a text file's path."""
    max_prompt_tokens: Positive = 100_000
    """Longer prompts lose the middle of their context, as in the paper (arXiv 2508.13993)."""


# OpenAI tells nobody its models' windows.
GPT_4O = ChatConfig(provider="openai", model="gpt-4o", context_window=128_000)


class LongBenchConfig(EvaluateConfig):
    """`longpo evaluate longbench`: the twelve LongBench sets that LongReward evaluates on, rated by a judge."""

    model: ChatConfig
    judge: ChatConfig | None = GPT_4O
    """Rates answers against the references; null for LongBench's automatic metrics alone."""
    judging: VerdictConfig = VerdictConfig()
    """How the judge's verdicts are read."""


class LongBenchChatConfig(EvaluateConfig):
    """`longpo evaluate longbench-chat`: open questions over long documents, rated 1 to 10 by a judge."""

    few_shots: str
    """The rated answers, as published: a .json list with one list for each question of {"answer", "score"}."""
    model: ChatConfig
    judge: ChatConfig = GPT_4O
    """Rates answers."""
    judging: VerdictConfig = VerdictConfig()
    """How the judge's verdicts are read."""


class WinRateConfig(EvaluateConfig):
    """`longpo evaluate winrate`: two models' answers side by side."""

    input_split: str = "train"
    """Split of a hub data set."""
    model: ChatConfig
    against: ChatConfig
    """The model that it is to be better than."""
    judge: ChatConfig = GPT_4O
    """Tells which answer is better, in both orders."""
    judging: VerdictConfig = VerdictConfig()
    """How the judge's verdicts are read."""


def _check_engines(*models: ChatConfig | None) -> None:
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
