"""The one small protocol that every chat model is used through.

A backend takes a request and gives a completion, or raises `CallFailed` (this call is lost) or `UserError` (no call
can work until somebody mends something). Trying again and remembering results are not its business (calls.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from lf_longpo.config import SamplingConfig
from lf_longpo.models.cache import CUT_OFF
from lf_longpo.text.differences import whole_letters


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One user message and how to answer it. The same request to a deterministic model gives the same completion."""

    prompt: str
    sampling: SamplingConfig
    seed: int
    reply_start: str = ""
    """What the reply begins with; the model goes on from there. Only for models that `continues_replies`."""
    weigh_after: str = ""
    """A mark in the reply, its start included: the probabilities of what follows its last occurrence are asked for."""
    affinity: str = ""
    """Requests with the same one begin alike, so that a server that has seen one answers the others sooner."""

    def identity(self) -> dict[str, Any]:
        """All that determines the completion, as plain data."""
        asked = {"prompt": self.prompt, "sampling": self.sampling.model_dump(), "seed": self.seed}
        extra = {"reply_start": self.reply_start, "weigh_after": self.weigh_after}
        return asked | {name: value for name, value in extra.items() if value}


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back, and what it cost in tokens."""

    text: str
    """New text only, without the request's `reply_start`."""
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    """`stop`, `CUT_OFF`, or another word of the server's."""
    cached_tokens: int = 0
    """Of the prompt's, those that the server had in its prefix cache, where it tells."""
    weights: dict[str, float] | None = None
    """Probabilities (before temperature) of the likeliest texts right behind `weigh_after`; None where the mark is
    not in the reply or the backend does not tell."""

    def __post_init__(self) -> None:
        # Here, since every reply passes: those of servers, and those that a cache has kept as they came.
        object.__setattr__(self, "text", whole_letters(self.text))

    @property
    def truncated(self) -> bool:
        """Whether the text was cut off."""
        return self.finish_reason == CUT_OFF

    def plain(self) -> dict[str, Any]:
        """The completion as plain data."""
        return asdict(self)


class ChatModel(Protocol):
    """A chat model, wherever it runs."""

    continues_replies: bool
    """Whether it honours `ChatRequest.reply_start`."""
    limit: int
    """Calls that it takes at once, now."""

    async def start(self) -> int | None:
        """Gets ready, and tells the context window in tokens where it is known.

        Raises:
            UserError: the model cannot be used (no server, key rejected, no such model).
        """
        ...

    async def complete(self, request: ChatRequest) -> Completion:
        """Answers one request.

        Raises:
            TryAgain: this call may work the next time.
            CallFailed: this call is lost for good.
            UserError: no call can work.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections and memory."""
        ...


def token_behind(mark: str, start: str, tokens: Sequence[str]) -> tuple[int, str] | None:
    """Which token of a reply stands right behind the last `mark`.

    Args:
        mark: e.g. the two brackets before a rating.
        start: text before the first token.
        tokens: the new tokens' texts.

    Returns:
        The token's index and what it holds of the mark itself (mostly nothing), or None where the mark, or a token
        behind it, is missing.
    """
    text = start + "".join(tokens)
    place = text.rfind(mark) + len(mark)
    begin = len(start)
    if mark not in text or place < begin:
        return None
    for index, token in enumerate(tokens):
        if begin + len(token) > place:
            return index, text[begin:place]
        begin += len(token)
    return None


def weights_behind(held: str, likeliest: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Probabilities of what may stand behind a mark, of whose end the token in that place holds `held`.

    Args:
        held: as from `token_behind`; only alternatives that begin with it compare.
        likeliest: texts that could stand in the token's place, and their probabilities.
    """
    weights: dict[str, float] = {}
    for text, probability in likeliest:
        if text.startswith(held) and text != held:
            weights[text[len(held) :]] = weights.get(text[len(held) :], 0.0) + probability
    return weights
