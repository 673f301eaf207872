"""Settings of `longpo evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lf_longpo.config.base import Config, Positive
from lf_longpo.config.judging import JudgingConfig, VerdictConfig
from lf_longpo.config.models import ChatConfig, EmbedderConfig, JudgeModelConfig, check_budget, check_engines
from lf_longpo.config.sampling import GreedySampling


class EvaluationConfig(Config):
    """Settings that all evaluations share."""

    input: str | Annotated[list[str], Field(min_length=1)]
    """Questions: a .jsonl, .json, .parquet or .csv file, a folder of such files, or a data set on the hub (`org/name`,
    `org/name:subset`); or a list of these. Each file or data set is reported as a set of its own."""
    input_split: str = "test"
    """Split of a data set on the hub."""
    output_dir: Path
    """Folder of predictions, results and the files that resume the run."""
    tokenizer: str | None = None
    """Counts prompt tokens. Default: the model's tokenizer."""
    baseline: Path | None = None
    """output_dir of an earlier evaluation; its results are shown above the new ones."""
    seed: int = 42
    """Seed of all random choices."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """The run stops before its calls cost more than this, by the `price` of the models. Raise it to resume the run."""
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The exit code is 1 if a larger share of the questions failed or could not be judged."""

    @model_validator(mode="after")
    def _models_fit(self) -> "EvaluationConfig":
        models = [model for name in type(self).model_fields if isinstance(model := getattr(self, name), ChatConfig)]
        check_engines(*models)
        check_budget(self.max_cost, *models)
        return self


class EvaluateConfig(EvaluationConfig):
    """Settings of the evaluations in which models answer questions."""

    prompt: str = "plain"
    """Prompt: `plain` (the context, then the question), `reasoning`, `brief`, or the path of a text file."""
    samples: Positive = 1
    """Answers per question; scores are their means. More than one needs a temperature above 0."""
    sampling: GreedySampling = GreedySampling()
    """Sampling of answers. Default: greedy, at most 1024 new tokens."""
    max_prompt_tokens: Positive = 64_000
    """Longer prompts lose the middle of the context."""

    @model_validator(mode="after")
    def _samples_differ(self) -> "EvaluateConfig":
        if self.samples > 1 and self.sampling.temperature == 0:
            raise ValueError("samples above 1 at temperature 0 are all the same; set sampling.temperature above 0")
        return self


class LongQAConfig(EvaluateConfig):
    """`longpo evaluate longqa`: answers to long-context questions, scored by EM, F1 and SubEM."""

    input_split: str = "train"
    """Split of a data set on the hub."""
    model: ChatConfig
    prompt: str = "reasoning"
    """Prompt: `reasoning` (the form of LongMab-PO), `brief`, or the path of a text file."""
    max_prompt_tokens: Positive = 100_000
    """Longer prompts lose the middle of the context. The default is the published one (arXiv 2508.13993)."""


# OpenAI's API does not report the context windows of its models.
GPT_4O = ChatConfig(provider="openai", model="gpt-4o", context_window=128_000)


class LongBenchConfig(EvaluateConfig):
    """`longpo evaluate longbench`: the twelve LongBench sets that LongReward evaluates on, rated by a judge."""

    model: ChatConfig
    judge: ChatConfig | None = GPT_4O
    """Rates answers against the references; null: only LongBench's automatic metrics. Default: gpt-4o at
    OpenAI. Keys that you set change this default: another `model`
    drops its context_window, another `backend`, `provider` or `base_url` replaces the whole default."""
    judging: VerdictConfig = VerdictConfig()
    """How the judge's verdicts are read."""


class LongBenchChatConfig(EvaluateConfig):
    """`longpo evaluate longbench-chat`: open questions over long documents, rated 1 to 10 by a judge."""

    few_shots: str
    """Rated answers that the judge sees as examples: a .json file in the published form, a list with one list of
    {"answer", "score"} for each question."""
    model: ChatConfig
    judge: ChatConfig = GPT_4O
    """Rates answers. Default: gpt-4o at OpenAI. Keys that you set change this default: another `model`
    drops its context_window, another `backend`, `provider` or `base_url` replaces the whole default."""
    judging: VerdictConfig = VerdictConfig()
    """How the judge's verdicts are read."""


class WinRateConfig(EvaluateConfig):
    """`longpo evaluate winrate`: answers of two models, compared by a judge."""

    input_split: str = "train"
    """Split of a data set on the hub."""
    model: ChatConfig
    against: ChatConfig
    """The model to compare with."""
    judge: ChatConfig = GPT_4O
    """Decides which answer is better, in both orders. Default: gpt-4o at OpenAI. Keys that you set change this default:
    another `model` drops its context_window, another `backend`, `provider` or `base_url` replaces the whole default."""
    judging: VerdictConfig = VerdictConfig()
    """How the judge's verdicts are read."""


class EvaluateJudgeConfig(EvaluationConfig):
    """`longpo evaluate judge`: the decisions of a judge, compared with labelled preferences."""

    input: str | Annotated[list[str], Field(min_length=1)]
    """Labelled pairs: a .jsonl, .json, .parquet or .csv file, a folder of such files, or a data set on the hub
    (`org/name`, `org/name:subset`); or a list of these. Rows have `context`, `query`, `chosen` and `rejected`, or the
    fields of LongReward-10k, LongRewardBench or RewardBench. The scored_responses.jsonl of a LongReward run gives the
    best and the worst response of each question; set `contexts`, too."""
    input_split: str = "train"
    """Split of a data set on the hub (RewardBench: `filtered`)."""
    contexts: str | None = None
    """Questions with the contexts of a scored_responses.jsonl: the `input` of its run."""
    tokenizer: str | None = None
    """Counts the tokens of contexts, responses and prompts. Default: the judge's tokenizer."""
    judge: JudgeModelConfig
    """The judge to measure."""
    mode: Literal["score", "compare"] = "score"
    """How the judge decides. `score`: it scores each response alone, and the higher score wins; a chat model scores
    LongReward's four dimensions, a reward model gives one score. `compare`: it sees both responses, in both orders, as
    in `longpo evaluate winrate`; orders that disagree are a tie."""
    runs: Positive = 1
    """How often the judge decides on each pair, each time with other seeds. 2 or more measure whether its decisions
    are stable."""
    longreward: JudgingConfig = JudgingConfig()
    """How a chat model scores (mode: score)."""
    embedder: EmbedderConfig = EmbedderConfig()
    """Finds the passages of the context that fit a statement (mode: score, chat models only)."""
    judging: VerdictConfig = VerdictConfig()
    """How verdicts are read (mode: compare)."""

    @model_validator(mode="after")
    def _reward_model_scores(self) -> "EvaluateJudgeConfig":
        if self.judge.backend == "reward_model" and self.mode == "compare":
            raise ValueError(
                "mode: compare needs a chat model, because a reward model sees one response at a time; set mode: score"
            )
        return self

    @model_validator(mode="after")
    def _embedder_has_a_price(self) -> "EvaluateJudgeConfig":
        if self.embeds:
            check_budget(self.max_cost, self.embedder)
        return self

    @property
    def embeds(self) -> bool:
        """Whether the embedder is needed."""
        return self.mode == "score" and self.judge.backend != "reward_model"
