"""`longpo evaluate`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from lf_longpo.config.base import Config, Positive
from lf_longpo.config.judging import VerdictConfig
from lf_longpo.config.models import ChatConfig, check_budget, check_engines
from lf_longpo.config.sampling import GreedySampling


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
        check_engines(*models)
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
