"""`longpo generate`: the two methods, and how their pairs are made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, ModelWrapValidatorHandler, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from lf_longpo.config.base import Config, Positive
from lf_longpo.config.judging import JudgingConfig
from lf_longpo.config.models import ChatConfig, EmbedderConfig, check_budget, check_engines
from lf_longpo.config.sampling import ResponseSampling, SamplingConfig


class LongMabConfig(Config):
    """The bandit (LongMab-PO, arXiv 2508.13993); the defaults are the paper's."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"lean": {"selection": "linear", "stop": 1.0}}

    preset: Literal["paper", "lean"] = "paper"
    """Values of `selection` and `stop` if you do not set them. `paper`: as published. `lean`: `linear` and 1, for fewer
    calls; see docs/fewer-calls.md."""
    chunk_size: Positive = 1500
    """The most tokens of a chunk (an arm). Smaller: more arms, finer credit, more rounds needed."""
    chunk_overlap: Annotated[int, Field(ge=0)] = 2
    """Sentences that a chunk repeats from the chunk before it."""
    rounds: Positive = 30
    """Rollouts per question, at most. Calls and time grow with it."""
    stop: Annotated[float, Field(gt=0, le=1)] | None = None
    """Ends a question as soon as it has `pairs.per_question` pairs and its best and its worst response differ by this
    reward. 1: no further round could improve its first pair. Smaller: fewer calls, smaller differences. Default: all
    rounds."""
    top_k: Positive = 4
    """Chunks that make up the context of one rollout."""
    init: Literal["probe_similarity", "query_similarity", "random"] = "probe_similarity"
    """An arm's first value: similarity of its chunk to the probe, to the question, or drawn from [0, 1)."""
    selection: Literal["ucb", "linear", "random"] = "ucb"
    """How the chunks of a round are selected. `ucb`: by the published bandit. `linear`: by a linear model that gives
    credit to each chunk, and that looks for a wrong answer once there is a right one. `random`: at random, the
    baseline; with a `top_k` of at least the number of chunks, it samples over the whole context."""
    prompt: str = "reasoning"
    """Rollout and training prompt: `reasoning` (the paper's form), `brief` (small models), or a text file's path."""
    probe_prompt: str = "probe"
    """Probe prompt: `probe`, `brief_probe` (small models), or a text file's path."""
    answer_form: Literal["published", "tolerant"] = "published"
    """How the answer is found in an output. `published`: the paper's rule, after `Answer:`, `The answer is:` or `Final
    answer is:`. `tolerant`: if that finds nothing, also after `**Answer**:`, `### Answer`, `Answer：` and `答案：`."""
    sampling: SamplingConfig = SamplingConfig()
    """For probes and rollouts."""


class LongRewardConfig(JudgingConfig):
    """Sampling and pairing around the judge (LongReward, arXiv 2410.21252); the defaults are the paper's."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"lean": {"racing": True, "statements_per_call": 8}}

    preset: Literal["paper", "lean"] = "paper"
    """Values of `racing` and `statements_per_call` if you do not set them. `paper`: as published. `lean`: true and 8,
    for fewer calls; see docs/fewer-calls-longreward.md."""
    racing: Annotated[bool, Field(strict=True)] = False
    """Whether faithfulness is checked only for responses that can still be the best or the worst of their question. The
    other responses get no reward. Needs `pairs.per_question: 1`."""
    racing_error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """With `racing`: the share of unchecked responses that may be better, or worse, than predicted. Smaller: more
    calls, and more often the same pair as without racing."""
    num_samples: Positive = 10
    """Responses per question. Cost and time grow with it."""
    sampling: ResponseSampling = ResponseSampling()
    """For the responses."""
    min_responses: Annotated[int, Field(ge=2, strict=True)] = 5
    """A question with fewer scored responses gives no pair."""


class PairsConfig(Config):
    """How rollouts and responses become training pairs."""

    template: str
    """LLaMA-Factory's template of the model to be trained (llama3, qwen, glm4, smollm2, ...)."""
    cutoff_len: Positive = 8500
    """The training recipe's cutoff_len: the context is cut in its middle until prompt and response fit."""
    allow_truncated: Annotated[bool, Field(strict=True)] = False
    """Whether responses that were cut off at `max_new_tokens` may become chosen or rejected. A model that is trained on
    such responses learns not to end."""
    per_question: Positive = 1
    """The most pairs of a question. 1: the best and the worst response, as published. More pairs make no calls, and
    `longpo train` computes the prompt of a question's pairs once."""
    choose: Literal["extremes", "ranked", "all"] = "ranked"
    """Which further pairs are made if `per_question` is above 1. `ranked`: second best with second worst, and so on.
    `all`: every two responses, largest reward difference first. `extremes`: as `ranked`, but only with the best and the
    worst reward. Responses that nearly repeat another one are not used."""
    min_gap: Annotated[float, Field(ge=0)] = 0.0
    """The least reward difference of a pair. 0: any difference. Rewards reach from 0 to 1 (longmab) or to 10
    (longreward)."""


class GenerateConfig(Config):
    """`longpo generate`: questions to preference pairs to a registered data set.

    `GenerateConfig(...)` and `GenerateConfig.model_validate` give the configuration of the method that the data name: a
    `LongMabGenerateConfig` or a `LongRewardGenerateConfig`.
    """

    method: Literal["longmab", "longreward"]
    input: str
    """Questions: a .jsonl, .json, .parquet or .csv file, or a data set on the Hugging Face hub."""
    input_split: str = "train"
    """Split of a hub data set."""
    start: Annotated[int, Field(ge=0, strict=True)] = 0
    """The first question of the input to work on, counted from 0."""
    end: Positive | None = None
    """The question before which to stop. Default: after the last question."""
    output_dir: Path
    """Everything that the run makes, and what it needs to resume."""
    dataset_dir: Path = Path("dataset_info")
    """LLaMA-Factory's data folder, where the pairs are registered."""
    dataset_name: str
    """The name that a training recipe's `dataset` uses."""
    policy: ChatConfig | None = None
    """The model that writes probes, rollouts and responses; best the model that will be trained. Required unless
    `responses` are given."""
    embedder: EmbedderConfig = EmbedderConfig()
    tokenizer: str | None = None
    """Counts tokens for chunks and lengths: that of the model to be trained. Default: the policy's model."""
    pairs: PairsConfig
    seed: int = 42
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """The run stops before its calls cost more than this, at the models' `price`; it can be resumed."""
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The run exits with 1 when a larger share of the questions failed."""

    def __new__(cls, **data: Any) -> Self:
        if cls is GenerateConfig and data:  # without data, pydantic makes an empty object to fill
            return cls.model_validate(data)
        return super().__new__(cls)

    @classmethod
    def variants(cls) -> list[type[Self]]:
        """One class for each method."""
        return cls.__subclasses__() or [cls]

    @property
    def system(self) -> str | None:
        """The policy's system prompt, which training reads, too."""
        return self.policy.system if self.policy else None

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_method(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        if cls is not GenerateConfig:
            return handler(_without_other_sections(cls, data))
        for kind in cls.variants():
            if get_args(kind.model_fields["method"].annotation) == (data.get("method"),):
                return kind.model_validate(data)
        # The method is wrong or missing; that its sections are unknown would be said for nothing.
        sections = _sections_of_others(cls)
        return handler({name: value for name, value in data.items() if name not in sections})

    @model_validator(mode="after")
    def _range_holds_something(self) -> "GenerateConfig":
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} leaves no question after start {self.start}; set a larger end")
        return self


class LongMabGenerateConfig(GenerateConfig):
    """`longpo generate` with `method: longmab`."""

    method: Literal["longmab"]
    policy: ChatConfig
    """The model that writes probes and rollouts; best the model that will be trained."""
    longmab: LongMabConfig = LongMabConfig()

    @model_validator(mode="after")
    def _models_fit(self) -> "LongMabGenerateConfig":
        if self.policy.batch:
            raise ValueError("policy.batch: each rollout waits for the one before it, a day in a batch; remove it")
        check_engines(self.policy)
        check_budget(self.max_cost, self.policy, self.embedder)
        return self


class LongRewardGenerateConfig(GenerateConfig):
    """`longpo generate` with `method: longreward`."""

    method: Literal["longreward"]
    judge: ChatConfig
    """The model that scores responses."""
    responses: str | None = None
    """Sampled responses, as {"idx": "<question's id>-<sample>", "query", "answer"} lines. With them, the policy samples
    nothing."""
    longreward: LongRewardConfig = LongRewardConfig()

    @model_validator(mode="after")
    def _has_responses(self) -> "LongRewardGenerateConfig":
        if self.policy is None and self.responses is None:
            raise ValueError("a policy is needed to sample responses; add the section policy, or set responses")
        if self.policy is None and self.tokenizer is None:
            raise ValueError("without a policy, tokenizer must name the model to be trained")
        if self.responses is None and self.longreward.num_samples < self.longreward.min_responses:
            raise ValueError(
                "longreward.num_samples is below longreward.min_responses, so no question gives a pair; raise the "
                "first or lower the second"
            )
        return self

    @model_validator(mode="after")
    def _racing_fits(self) -> "LongRewardGenerateConfig":
        if self.longreward.racing and self.pairs.per_question > 1:
            raise ValueError(
                "longreward.racing scores the best and the worst response of a question, which are one pair; set "
                "pairs.per_question: 1 or longreward.racing: false"
            )
        return self

    @model_validator(mode="after")
    def _models_fit(self) -> "LongRewardGenerateConfig":
        check_engines(self.policy, self.judge)
        check_budget(self.max_cost, None if self.responses else self.policy, self.judge, self.embedder)
        return self


def _sections_of_others(kind: type[GenerateConfig]) -> dict[str, FieldInfo]:
    """The fields that only other methods have."""
    others = [other.model_fields for other in GenerateConfig.variants()]
    return {name: field for fields in others for name, field in fields.items() if name not in kind.model_fields}


def _without_other_sections(kind: type[GenerateConfig], data: dict[str, Any]) -> dict[str, Any]:
    """The data without the sections of other methods, which a resolved config.yaml of an earlier version has.

    Raises:
        ValueError: such a section sets something else than its defaults.
    """
    sections = {name: field for name, field in _sections_of_others(kind).items() if name in data}
    if wrong := [name for name, field in sections.items() if not _is_default(data[name], field)]:
        raise ValueError(f"{', '.join(wrong)}: not for method: {data['method']}; remove it or change the method")
    return {name: value for name, value in data.items() if name not in sections}


def _is_default(value: Any, field: FieldInfo) -> bool:
    try:
        return value is None or bool(TypeAdapter(field.annotation).validate_python(value) == field.default)
    except ValidationError:
        return False
