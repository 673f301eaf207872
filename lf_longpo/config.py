"""Typed configuration: one YAML file a run, `key=value` overrides behind it, unknown keys are errors.

Every field carries its documentation right under it. Nothing here reads the environment or opens a model; a
configuration that loads may still name a file or a server that is not there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lf_longpo.errors import UserError

Positive = Annotated[int, Field(ge=1, strict=True)]


class Config(BaseModel):
    """What all configurations share: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class SamplingConfig(Config):
    """How the policy samples; the defaults are those of the published LongMab-PO code."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 1.0
    """Subtracted from the logit of every token that the output already has."""
    max_new_tokens: Positive = 1024


class ChatConfig(Config):
    """A chat model and where it runs."""

    backend: Literal["openai", "transformers"]
    """`openai`: any server that speaks the OpenAI API (vLLM, SGLang, a paid one). `transformers`: in this process."""
    model: str
    """The name the server knows; or for transformers a folder, a hub name, or the embedded `smollm2-135m`."""
    base_url: str | None = None
    """Address of the server, with its /v1. Default: OpenAI's."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key."""
    adapter: str | None = None
    """Folder of a LoRA adapter to load on top (transformers only; a server names its adapters in `model`)."""
    max_concurrency: Positive = 64
    """Calls in flight at once; for transformers the most rows in one batch."""
    context_window: Positive | None = None
    """Prompt and new tokens together. Default: what the server or the model's files say."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds after which a call is given up and tried again (openai only)."""
    max_retries: Annotated[int, Field(ge=0)] = 8
    """Tries after the first on rate limits, time-outs, lost connections and server errors (openai only)."""
    send_seed: bool = True
    """Whether each call carries a seed of its own (openai only). Off for servers that refuse or, as vLLM 0.32 on a CPU
    with chunked prefill, do not survive it; repeated runs then sample anew."""
    trust_remote_code: bool = False
    """Whether code that comes with the model's files may run here."""

    @model_validator(mode="after")
    def _backend_fields(self) -> "ChatConfig":
        if self.backend == "transformers" and self.base_url:
            raise ValueError("base_url goes with backend: openai; remove it or change the backend")
        if self.backend == "openai" and self.adapter:
            raise ValueError("adapter goes with backend: transformers; a server names its adapters in model")
        return self


class EmbedderConfig(Config):
    """The model that turns probes and chunks into vectors."""

    backend: Literal["sentence-transformers", "openai"] = "sentence-transformers"
    model: str = "minilm"
    """A folder, a hub name, or the embedded `minilm`; for openai the name the server knows."""
    base_url: str | None = None
    """Address of the server, with its /v1 (openai only)."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key (openai only)."""
    batch_size: Positive = 32
    """Texts a call or a forward pass."""
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
    prompt: str = "reasoning"
    """Roll-out and training prompt: `reasoning` (the paper's form), `brief` (small models), or a text file's path."""
    probe_prompt: str = "probe"
    """Probe prompt: `probe`, `brief_probe` (small models), or a text file's path."""
    sampling: SamplingConfig = SamplingConfig()
    """For probes and roll-outs."""


class PairsConfig(Config):
    """How roll-outs become training pairs."""

    template: str
    """LLaMA-Factory's template of the model to be trained (llama3, qwen, glm4, smollm2, ...)."""
    cutoff_len: Positive = 8500
    """The training recipe's cutoff_len: the context is cut in its middle until prompt and response fit."""


class GenerateConfig(Config):
    """`longpo generate`: questions to preference pairs to a registered data set."""

    method: Literal["longmab"]
    input: str
    """Questions: a .jsonl, .json or .parquet file, or a data set on the Hugging Face hub."""
    input_split: str = "train"
    """Split of a hub data set."""
    output_dir: Path
    """Everything the run makes and needs to carry on."""
    dataset_dir: Path = Path("dataset_info")
    """LLaMA-Factory's data folder, where the pairs are registered."""
    dataset_name: str
    """The name that a training recipe's `dataset` uses."""
    policy: ChatConfig
    """The model that writes probes and roll-outs, best the one that will be trained."""
    embedder: EmbedderConfig = EmbedderConfig()
    tokenizer: str | None = None
    """Counts tokens for chunks and lengths. Default: the policy's model."""
    longmab: LongMabConfig = LongMabConfig()
    pairs: PairsConfig
    seed: int = 42
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The run exits with 1 when a larger share of the questions failed."""


class LongQAConfig(Config):
    """`longpo evaluate longqa`: answers to long-context questions, scored by EM, F1 and SubEM."""

    input: str
    """Questions: a .jsonl, .json or .parquet file, or a data set on the Hugging Face hub."""
    input_split: str = "train"
    """Split of a hub data set."""
    output_dir: Path
    """Predictions, results and what is needed to carry on."""
    model: ChatConfig
    tokenizer: str | None = None
    """Counts prompt tokens. Default: the model."""
    prompt: str = "reasoning"
    """`reasoning`, `brief`, or a text file's path."""
    samples: Positive = 1
    """Answers a question; scores are their means. More than one needs a temperature above 0."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.0, top_p=1.0, presence_penalty=0.0)
    """Greedy by default, 1024 new tokens (the protocol of arXiv 2508.13993)."""
    max_prompt_tokens: Positive = 100_000
    """Longer prompts lose the middle of their context, as in the paper."""
    baseline: Path | None = None
    """The output_dir of an earlier evaluation, shown beside this one."""
    seed: int = 42
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The run exits with 1 when a larger share of the questions failed."""

    @model_validator(mode="after")
    def _samples_differ(self) -> "LongQAConfig":
        if self.samples > 1 and self.sampling.temperature == 0:
            raise ValueError("samples above 1 at temperature 0 would all be the same; set sampling.temperature")
        return self


C = TypeVar("C", bound=Config)


def load_config(kind: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """Reads a YAML file, applies `key=value` overrides (dots go down: `longmab.rounds=8`) and checks the result.

    Raises:
        UserError: the file is missing or no YAML mapping, an override is malformed, or a key or value is wrong; one
            line for each fault, naming the file and the field.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that is none
        raise UserError(f"{path} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold keys and values")
    for override in overrides:
        _apply(data, override)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise UserError("\n".join(_explain(path, kind, fault) for fault in error.errors())) from None


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r} must have the form key=value, as in longmab.rounds=8")
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise UserError(f"override {override!r}: {parent} holds a value, not keys")
    try:
        data[last] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"override {override!r}: {value!r} is not a YAML value; quote it") from None


def _explain(path: str | Path, kind: type[Config], fault: Any) -> str:
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        near = _nearest(kind, fault["loc"])
        return f"{path}: unknown key {field}" + (f"; did you mean {near}?" if near else "")
    if fault["type"] == "missing":
        return f"{path}: {field} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{path}: {field or 'the configuration'}: {message}" + (
        f", not {fault['input']!r}" if isinstance(fault["input"], str | int | float | bool) else ""
    )


def _nearest(kind: type[Config], location: tuple[Any, ...]) -> str | None:
    import difflib

    for part in location[:-1]:
        annotation = kind.model_fields[part].annotation if part in kind.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, Config)):
            return None
        kind = annotation
    return next(iter(difflib.get_close_matches(str(location[-1]), kind.model_fields)), None)
