"""Settings of a judge: how it scores and how its verdicts are read."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lf_longpo.config.base import Config, Positive


class VerdictConfig(Config):
    """How a judge's verdict is read."""

    rating: Literal["parsed", "expected"] | None = None
    """`parsed`: the number that the judge writes. `expected`: the mean of all ratings, weighted by their token
    probabilities (a local model, vLLM or SGLang; paid services only if they report probabilities). Default: expected
    for the embedded model, parsed for other models."""
    analysis_tokens: Annotated[int, Field(ge=0, strict=True)] = 512
    """Most new tokens of an analysis and its verdict. 0 (with rating: expected): the rating without an analysis."""

    @model_validator(mode="after")
    def _verdict_has_room(self) -> "VerdictConfig":
        if self.analysis_tokens == 0 and self.rating == "parsed":
            raise ValueError(
                "analysis_tokens: 0 leaves no tokens for a parsed verdict; raise it or set rating: expected"
            )
        return self


class JudgingConfig(VerdictConfig):
    """How a judge scores a response (LongReward, arXiv 2410.21252); the defaults are the published values."""

    chunk_size: Positive = 4096
    """Tokens of each part of a context from which the judge extracts relevant information. Smaller parts need more
    calls and are read more closely."""
    evidence_chunk_size: Positive = 128
    """Tokens of a passage that serves as evidence for a statement."""
    evidence_top_k: Positive = 5
    """Passages that each statement is checked against."""
    statements_per_call: Positive = 1
    """The most statements of a response that one call checks. 1: as published. More: fewer calls; the judge sees the
    passages of these statements together. Needs `rating: parsed`. A statement without a verdict is checked alone."""
    prompts: str | None = None
    """Prompts of the judge: `full` (definitions and examples), `brief` (small models), or a folder; its files replace
    the files of `full` with the same names. Default: brief for the embedded model, full for other models."""
