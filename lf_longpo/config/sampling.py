"""How models sample."""

from typing import Annotated

from pydantic import Field

from lf_longpo.config.base import Config, Positive


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
