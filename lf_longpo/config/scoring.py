"""`longpo score`."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from lf_longpo.config.base import Config
from lf_longpo.config.judging import JudgingConfig
from lf_longpo.config.models import ChatConfig, EmbedderConfig, check_budget


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
