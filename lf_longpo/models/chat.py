"""The protocol of all chat models.

A backend takes a request and returns a completion, or raises `CallFailed` (this call is lost) or `UserError` (no call
can work until you fix the cause). Retries and the call cache are not part of a backend; see calls.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from lf_longpo.config import SamplingConfig
from lf_longpo.models.cache import CUT_OFF
from lf_longpo.text.differences import whole_letters


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A user message and how to answer it. The same request to a deterministic model gives the same completion."""

    prompt: str
    sampling: SamplingConfig
    seed: int
    reply_start: str = ""
    """Text that the reply begins with; the model continues it. Only for models with `continues_replies`."""
    weigh_after: str = ""
    """A mark in the reply or its start. The probabilities of the token after its last occurrence are requested."""
    affinity: str = ""
    """Requests with the same value share a beginning; the server that has read it answers them sooner."""

    def identity(self) -> dict[str, Any]:
        """Everything that determines the completion, as plain data."""
        always = {"prompt": self.prompt, "sampling": self.sampling.model_dump(), "seed": self.seed}
        optional = {"reply_start": self.reply_start, "weigh_after": self.weigh_after}
        return always | {name: value for name, value in optional.items() if value}


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply, and the tokens it took."""

    text: str
    """New text only, without the request's `reply_start`."""
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    """`stop`, `CUT_OFF`, or another reason in the server's words."""
    cached_tokens: int = 0
    """Prompt tokens that were in the server's prefix cache; 0 if it does not report them."""
    weights: dict[str, float] | None = None
    """Probabilities (before temperature) of the likeliest texts directly after `weigh_after`; None if the mark is not
    in the reply or the backend reports no probabilities."""
    thought: str = ""
    """The model's thought, where the server reports it apart from the text, and in every completion that `Calls`
    returns. In those, `text` is the answer only."""

    def __post_init__(self) -> None:
        # Here, because every reply passes through here: those of servers, and those that the call cache kept.
        object.__setattr__(self, "text", whole_letters(self.text))
        object.__setattr__(self, "thought", whole_letters(self.thought))

    @property
    def unfinished_thought(self) -> bool:
        """Whether the model thought and gave no answer."""
        return bool(self.thought) and not self.text.strip()

    @property
    def truncated(self) -> bool:
        """Whether the text was cut off, or ended before an answer."""
        return self.finish_reason == CUT_OFF or self.unfinished_thought

    def plain(self) -> dict[str, Any]:
        """The completion as plain data."""
        return asdict(self)


class ChatModel(Protocol):
    """A chat model, on a server or in this process."""

    continues_replies: bool
    """Whether it continues `ChatRequest.reply_start`."""

    @property
    def limit(self) -> int:
        """Number of calls that it takes at once, at this moment."""
        ...

    async def start(self) -> int | None:
        """Gets ready. Returns the context window in tokens, or None if it is unknown.

        Raises:
            UserError: the model cannot be used (no server, key rejected, no such model).
        """
        ...

    async def complete(self, request: ChatRequest) -> Completion:
        """Answers one request.

        Raises:
            TryAgain: this call may work if it is made again.
            CallFailed: this call is lost for good.
            UserError: no call can work.
        """
        ...

    async def close(self) -> None:
        """Closes connections and frees memory."""
        ...


def messages_of(prompt: str, system: str | None) -> list[dict[str, str]]:
    """The messages of a request: the model's system prompt if it has one, and the user message `prompt`."""
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": prompt}]


def token_after(mark: str, start: str, tokens: Sequence[str]) -> tuple[int, str] | None:
    """Finds the token directly after the last `mark` in a reply.

    Args:
        mark: for example the two brackets before a rating.
        start: text before the first token.
        tokens: texts of the new tokens.

    Returns:
        The token's index and the end of the mark that is part of the token (mostly empty); None if the mark is missing
        or no token follows it.
    """
    text = start + "".join(tokens)
    end = text.rfind(mark) + len(mark)
    begin = len(start)
    if mark not in text or end < begin:
        return None
    for index, token in enumerate(tokens):
        if begin + len(token) > end:
            return index, text[begin:end]
        begin += len(token)
    return None


def weights_after(held: str, likeliest: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Probabilities of the texts that may follow a mark.

    Args:
        held: the end of the mark that is part of the token, from `token_after`. Alternatives that do not begin with it
            are left out.
        likeliest: texts of the alternatives to the token, with their probabilities.
    """
    weights: dict[str, float] = {}
    for text, probability in likeliest:
        if text.startswith(held) and text != held:
            weights[text[len(held) :]] = weights.get(text[len(held) :], 0.0) + probability
    return weights
