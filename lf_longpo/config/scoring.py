"""Settings of `longpo score`."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from lf_longpo.config.base import Config
from lf_longpo.config.judging import JudgingConfig
from lf_longpo.config.models import ChatConfig, EmbedderConfig, check_budget


class ScoreConfig(Config):
    """`longpo score`: scores for existing responses."""

    responses: str
    """Responses: lines with {"idx": "<idx of the context>-<sample>", "query", "answer"}, with or without a
    `context`."""
    contexts: str | None = None
    """Contexts of the responses: rows with `idx`, `query` and `context`. Default: each response has its own
    `context`."""
    output_dir: Path
    """Folder of scores and of the files that resume the run. Default: runs/score_NAME for responses in NAME.jsonl."""
    judge: ChatConfig = ChatConfig(backend="transformers", model="smollm2-135m", max_concurrency=16)
    """Scores responses. Default: the embedded smollm2-135m in this process, in batches of 16. Keys that you set change
    this default: `judge.model` names another model for this process, while another `backend`, `provider` or `base_url`
    replaces the whole default."""
    embedder: EmbedderConfig = EmbedderConfig()
    """Finds the passages of the context that fit a statement."""
    tokenizer: str | None = None
    """Counts tokens for chunks and lengths. Default: the judge's tokenizer."""
    longreward: JudgingConfig = JudgingConfig()
    """How the judge scores."""
    seed: int = 42
    """Seed of all random choices."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """The run stops before its calls cost more than this, by the `price` of the models. Raise it to resume the run."""
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The exit code is 1 if a larger share of the questions failed."""

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
