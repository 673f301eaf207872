"""How a judge scores, and how its verdicts are read."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lf_longpo.config.base import Config, Positive


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
