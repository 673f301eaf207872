"""`longpo generate`: the two methods, and how their pairs are made."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lf_longpo.config.base import Config, Positive
from lf_longpo.config.judging import JudgingConfig
from lf_longpo.config.models import ChatConfig, EmbedderConfig, check_budget, check_engines
from lf_longpo.config.sampling import ResponseSampling, SamplingConfig


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
        check_engines(self.policy, self.judge)
        check_budget(self.max_cost, None if self.responses else self.policy, self.judge, self.embedder)
        return self
