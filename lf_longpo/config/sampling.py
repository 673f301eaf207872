"""Settings of sampling."""

from typing import Annotated

from pydantic import Field

from lf_longpo.config.base import Config, Positive


class SamplingConfig(Config):
    """Sampling of the policy; the defaults are those of the published LongMab-PO code."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0: greedy decoding."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Nucleus sampling: only the most probable tokens with this total probability are drawn from."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 1.0
    """Subtracted from the logit of every token that is already in the output."""
    max_new_tokens: Positive = 1024
    """Most tokens of a reply. Longer replies are cut off."""


class ResponseSampling(SamplingConfig):
    """Sampling of responses that are scored (LongReward, arXiv 2410.21252)."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: only the most probable tokens with this total probability are drawn from."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Subtracted from the logit of every token that is already in the output."""


class GreedySampling(ResponseSampling):
    """Sampling in evaluations: greedy by default."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0: greedy decoding."""
