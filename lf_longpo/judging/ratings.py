"""The protocol of judges that score one response at a time."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lf_longpo.data.records import Question
from lf_longpo.models.calls import Calls
from lf_longpo.models.embedders import Embedder
from lf_longpo.models.usage import Usage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Rating(NamedTuple):
    """The scores of a response; a better response has higher ones."""

    total: float
    dimensions: Mapping[str, float]
    """The score on each dimension of the rater."""


class Rate(Protocol):
    """Scores one response."""

    async def __call__(self, id: str, question: Question, response: str) -> Rating:
        """Scores one response.

        Args:
            id: names the cached calls.
            question: the question and its context.
            response: an answer to it.

        Raises:
            Unreadable: the judge's reply holds no score.
            CallFailed: a call failed for good.
        """
        ...


class Rater(Protocol):
    """A way to score responses."""

    dimensions: Sequence[str]
    """Names of the dimensions; empty if there is only a total."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts that determine the requests, together with question and response."""
        ...

    def rate(
        self, judge: Calls, embedder: Embedder | None, tokenizer: "PreTrainedTokenizerBase", remembered: int
    ) -> Rate:
        """What scores responses with these models; each result repeats the calls that another one has made.

        Args:
            judge: the judge.
            embedder: finds evidence; None if none is needed.
            tokenizer: counts tokens.
            remembered: how many questions are in flight.

        Raises:
            UserError: the judge does not support the configured way to score.
        """
        ...

    def usage(
        self, question: Question, responses: Sequence[str], tokenizer: "PreTrainedTokenizerBase"
    ) -> dict[str, Usage]:
        """Expected calls and tokens to score the responses, by stage."""
        ...
