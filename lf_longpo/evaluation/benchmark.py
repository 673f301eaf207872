"""The protocol of a benchmark: what `longpo evaluate` asks of it."""

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
    """Questions for models, and scores for their answers."""

    name: str
    """Its subcommand of `longpo evaluate`."""
    metrics: Sequence[str]
    """The scores of an answer, the most important first; each is in [0, 1], or None if it is unknown."""
    groups: Mapping[str, Collection[str]]
    """Sets with a common mean in the results, by the name of the group."""
    models: Mapping[str, ChatConfig]
    """The models that answer, by stage."""
    template: str
    """The prompt template for the models."""

    @property
    def judge(self) -> ChatConfig | None:
        """The judge, if there is one."""
        ...

    @property
    def asked(self) -> Sequence[str]:
        """All texts that determine the requests, together with the items; part of the items' digests."""
        ...

    def items(self, faults: Faults = AT_ONCE) -> Placed:
        """Streams the items.

        Args:
            faults: takes the rows that cannot be used.

        Raises:
            UserError: the input cannot be read.
        """
        ...

    def equip(self, judge: Calls | None) -> None:
        """Takes the judge.

        Raises:
            UserError: the judge does not support the configured way to read verdicts.
        """
        ...

    async def score(self, item: Item, answers: Sequence[str]) -> Row:
        """The row of a sample: the answers, their scores by metric, and details.

        Args:
            item: the question.
            answers: the answer of each model.

        Raises:
            CallFailed: a call of the judge failed for good.
        """
        ...

    def estimate(self, item: Item, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Usage]:
        """Expected calls and tokens to judge one sample, by stage."""
        ...
