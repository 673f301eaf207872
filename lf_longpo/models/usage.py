"""The calls, tokens and cost that a run is expected to take, before any call is made."""

from dataclasses import dataclass

from lf_longpo.config import PriceConfig
from lf_longpo.models.ledger import cost_of


@dataclass(frozen=True, slots=True)
class Usage:
    """Calls and tokens that a stage is expected to take."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def times(self, number: int) -> "Usage":
        """This usage, `number` times."""
        return Usage(self.calls * number, self.prompt_tokens * number, self.completion_tokens * number)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast calls are answered, all calls together, and where the numbers come from."""

    new: float
    """New tokens a second."""
    prompt: float | None
    """Prompt tokens a second, read before new tokens are written; None if `new` includes the time for prompts."""
    source: str

    def seconds(self, usage: Usage) -> float:
        """The time that `usage` takes."""
        return usage.completion_tokens / self.new + (usage.prompt_tokens / self.prompt if self.prompt else 0.0)


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected usage and cost of a stage."""

    stage: str
    usage: Usage
    cost: float
    """0 without a price."""


def expected(stage: str, usage: Usage, price: PriceConfig | None) -> Expected:
    """`usage` with its cost, 0 without a price."""
    return Expected(stage, usage, cost_of(price, usage.prompt_tokens, usage.completion_tokens))
