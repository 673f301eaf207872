"""A local reward model as a `Rater`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lf_longpo.config import ChatConfig, SamplingConfig
from lf_longpo.data.records import Question
from lf_longpo.judging.ratings import Rate, Rating
from lf_longpo.models.calls import Call, Calls
from lf_longpo.models.embedders import Embedder
from lf_longpo.models.tokenizers import NO_LIMIT, chat_tokens, own_window
from lf_longpo.models.usage import Usage
from lf_longpo.text.chunking import count_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A reward model writes nothing. The tokens leave room in its window for the marks that end the response.
_NO_TEXT = SamplingConfig(temperature=0.0, top_p=1.0, presence_penalty=0.0, max_new_tokens=32)


class RewardRater:
    """Gives a response the one score of a reward model; its prompt is the context, an empty line and the question.

    Args:
        judge: the reward model's settings.
    """

    dimensions: Sequence[str] = ()
    texts: Sequence[str] = ()

    def __init__(self, judge: ChatConfig) -> None:
        self._judge = judge

    def rate(
        self, judge: Calls, embedder: Embedder | None, tokenizer: "PreTrainedTokenizerBase", remembered: int
    ) -> Rate:
        """See `Rater.rate`."""

        async def rate(id: str, question: Question, response: str) -> Rating:
            call = Call("judge", id, 0, _NO_TEXT, _prompt(question), question.context, reply_start=response)
            completion = await judge.complete(call)
            return Rating(float(completion.text), {})

        return rate

    def usage(
        self, question: Question, responses: Sequence[str], tokenizer: "PreTrainedTokenizerBase"
    ) -> dict[str, Usage]:
        """See `Rater.usage`."""
        window = own_window(self._judge, tokenizer) or NO_LIMIT
        prompt = chat_tokens(_prompt(question)(question.context), tokenizer, self._judge)
        sizes = [min(prompt + count_tokens(response, tokenizer), window) for response in responses]
        return {"judge": Usage(len(sizes), sum(sizes), 0)}


def _prompt(question: Question) -> Callable[[str], str]:
    return lambda context: f"{context}\n\n{question.question}" if context else question.question
