"""What an evaluation protocol brings to `longpo evaluate`, and what it is given."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from lf_longpo.config import ChatConfig
from lf_longpo.evaluation.items import Item, Placed
from lf_longpo.files.faults import AT_ONCE, Faults
from lf_longpo.models.calls import Calls
from lf_longpo.models.usage import Usage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]


class Benchmark(Protocol):
    """A way to ask models and to score what they answer."""

    name: str
    """As `longpo evaluate` calls it."""
    metrics: Sequence[str]
    """What each answer is scored by, the most telling one first; each in [0, 1], or None where it could not be told."""
    groups: Mapping[str, Collection[str]]
    """Sets whose means are also told together, by the group's name."""
    models: Mapping[str, ChatConfig]
    """Who answers, by stage."""
    judge: ChatConfig | None
    """Who judges, if anybody."""
    template: str
    """The prompt that models are asked with."""
    asked: Sequence[str]
    """All that determines what models and judge are asked beside the items; goes into their digests."""

    def items(self, faults: Faults = AT_ONCE) -> Placed:
        """Streams the items.

        Args:
            faults: takes the rows that cannot be used.

        Raises:
            UserError: the input cannot be read.
        """
        ...

    def equip(self, judge: Calls | None) -> None:
        """Hands over the judge.

        Raises:
            UserError: it cannot judge in the way that is set.
        """
        ...

    async def score(self, item: Item, answers: Sequence[str]) -> Row:
        """The answers, their scores by metric and what else is worth keeping.

        Args:
            item: what was asked.
            answers: one of each model.

        Raises:
            CallFailed: a call of the judge was lost.
        """
        ...

    def estimate(self, item: Item, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """What judging one sample is expected to take, by stage."""
        ...
