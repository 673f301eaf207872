"""A chat model as a run uses it: calls are limited, retried, cached and counted, and prompts are cut to the window."""

import asyncio
import hashlib
import json
import random
import time
import uuid
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lf_longpo.aio import Once
from lf_longpo.config import ChatConfig, SamplingConfig
from lf_longpo.data.records import record_of
from lf_longpo.errors import CallFailed, NoServer, TextTooLong, TryAgain, UserError
from lf_longpo.models.adapters import fingerprint
from lf_longpo.models.cache import CallCache, CallKey, StageTotals, request_hash, was_truncated
from lf_longpo.models.chat import ChatModel, ChatRequest, Completion
from lf_longpo.models.ledger import Ledger, cost_of
from lf_longpo.models.quota import Quota
from lf_longpo.models.refusals import Refusals
from lf_longpo.models.thoughts import Thoughts
from lf_longpo.models.tokenizers import chat_tokens, own_window
from lf_longpo.models.turns import QuestionOrder, Turns
from lf_longpo.text.fitting import cut_middle

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# More tokens than any chat template adds to a user's message.
_TEMPLATE_MARGIN = 512
# Seconds before a lost call is made again: doubled each time, up to half of it random, so that calls that were lost
# together are not repeated together.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a run. `stage`, `question` and `index` name it: they are part of its cache key and of its seed."""

    stage: str
    question: str
    """The question's id."""
    index: int
    """The round, sample or attempt."""
    sampling: SamplingConfig
    render: Callable[[str], str]
    """Puts a context into the prompt."""
    context: str
    """Its middle is cut where the prompt would not fit the window."""
    max_prompt_tokens: int | None = None
    """A limit below the window's."""
    reply_start: str = ""
    """See `ChatRequest`."""
    weigh_after: str = ""
    """See `ChatRequest`."""
    following: int = 0
    """Calls that wait for this one, one after the other; at the end of a run, longer chains go first."""


class Calls:
    """A chat model with its call cache.

    Args:
        model: the backend, not started yet.
        config: its configuration.
        tokenizer: counts prompt tokens.
        cache: keeps finished calls.
        ledger: limits and counts the calls that are made.
        seed: the run's seed; the seed of each call follows from it and from the call's name.
        order: ranks the run's questions. Default: first come, first served.
        section: the section that configures the model, for errors.
    """

    def __init__(
        self,
        model: ChatModel,
        config: ChatConfig,
        tokenizer: "PreTrainedTokenizerBase",
        cache: CallCache,
        ledger: Ledger,
        seed: int,
        order: QuestionOrder | None = None,
        section: str = "model",
    ) -> None:
        self._model = model
        self._config = config
        self._tokenizer = tokenizer
        self._cache = cache
        self._seed = seed
        self._ledger = ledger
        self._order = order or QuestionOrder()
        self._turns = Turns(lambda: model.limit)
        self._requests = Quota(config.requests_per_minute, ledger.pause)
        self._tokens = Quota(config.tokens_per_minute, ledger.pause)
        # The path alone where the adapter has no files to hash.
        self._adapter = fingerprint(config.adapter) or config.adapter
        self._under_way: Once[Completion] = Once(0)
        self._started: Once[None] = Once(1)
        self._refusals = Refusals()
        self._section = section
        self._thoughts = Thoughts()
        self._window = 0
        self._margin = _TEMPLATE_MARGIN + len(json.dumps(config.request_settings).encode())

    async def start(self) -> None:
        """Starts the model and finds its context window, once. Without this, the first call does it.

        Raises:
            UserError: the model cannot be used, or its window is unknown.
        """
        await self._started.get(None, self._start)

    async def _start(self) -> None:
        reported = await self._model.start()
        window = self._config.context_window or reported or own_window(self._config, self._tokenizer)
        if window is None:
            raise UserError(
                f"{self._section}: the context window of {self._config.model!r} is unknown, because the server does "
                f"not report it; set {self._section}.context_window to the most tokens of prompt and reply together"
            )
        self._window = window

    async def complete(self, call: Call) -> Completion:
        """Completes `call.render(call.context)`, from the cache where this call was finished before.

        The completion's text is the answer only. It is empty where the model thought and gave no answer.

        Raises:
            CallFailed: the call is lost, or the prompt does not fit even without its context.
            Unfinished: no more calls are to be made.
            UserError: no call can work.
        """
        if not self._window:
            await self.start()
        request = await self._request(call)
        model = {"model": self._config.model, "adapter": self._adapter, **self._config.request_settings}
        key = CallKey(call.stage, call.question, call.index, request_hash(model | request.identity()))
        kept = self._cache.get(key)
        if kept is not None:
            completion = record_of(Completion, kept)
            # Rows of earlier versions hold the thought in the text.
            return completion if "thought" in kept else self._thoughts.separate(completion, request)
        return await self._under_way.get(key, lambda: self._make(key, request, call.following))

    @property
    def window(self) -> int:
        """Prompt and new tokens together that the model takes; 0 before it is started."""
        return self._window

    @property
    def continues_replies(self) -> bool:
        """Whether the model honours `reply_start`."""
        return self._model.continues_replies

    async def _request(self, call: Call) -> ChatRequest:
        sampling = call.sampling
        if self._config.thinking_tokens and not call.reply_start:  # a begun reply holds no thought
            most = sampling.max_new_tokens + self._config.thinking_tokens
            sampling = sampling.model_copy(update={"max_new_tokens": most})
        limit = self._window - sampling.max_new_tokens - len(self._tokenizer.tokenize(call.reply_start))
        if call.max_prompt_tokens is not None:
            limit = min(limit, call.max_prompt_tokens)
        prompt = call.render(call.context)
        # A token is at least one byte, so a short prompt needs no counting; the margin is for the chat template.
        if len(prompt.encode()) + self._margin > limit:
            prompt = call.render(await asyncio.to_thread(self._fit, call.render, call.context, limit))
        seed = _seed_of(f"{self._seed}/{call.stage}/{call.question}/{call.index}")
        return ChatRequest(prompt, sampling, seed, call.reply_start, call.weigh_after, call.question)

    async def _make(self, key: CallKey, request: ChatRequest, following: int) -> Completion:
        tries = 0
        while True:
            try:
                return await self._try(key, request, following)
            except NoServer as error:
                await self._ledger.pause(error.after)
            except TryAgain as error:
                if tries == self._config.max_retries:
                    raise
                wait = min(_FIRST_WAIT * 2**tries, _LONGEST_WAIT) * random.uniform(0.5, 1.0)
                await self._ledger.pause(max(error.after, wait))
                tries += 1
                self._ledger.retries += 1
                # A new affinity may send it to another server.
                request = replace(request, affinity=f"{key.question}/{tries}")

    async def _try(self, key: CallKey, request: ChatRequest, following: int) -> Completion:
        async with self._turns.take(self._order.rank(key.question), following):
            await self._requests.take(1)
            if self._config.tokens_per_minute:  # counting reads the whole prompt
                await self._tokens.take(self._minute_tokens(request))
            return await self._send(key, request)

    async def _send(self, key: CallKey, request: ChatRequest) -> Completion:
        async with self._ledger.set_aside(self._most(request)):
            began = time.monotonic()
            try:
                with self._refusals.watch(self._kind(key.stage, request), key.question):
                    completion = await self._model.complete(request)
            except CallFailed as error:
                if any(error.used):
                    lost = {"prompt_tokens": error.used[0], "completion_tokens": error.used[1], "lost": str(error)}
                    self._keep(key._replace(request=f"{key.request}/lost/{uuid.uuid4().hex}"), lost, began)
                raise
            if not completion.prompt_tokens:  # the server reports no usage, so tokens are counted here
                reply = completion.thought + completion.text
                completion = replace(
                    completion,
                    prompt_tokens=chat_tokens(request.prompt, self._tokenizer, self._config),
                    completion_tokens=len(self._tokenizer.tokenize(reply)),
                )
            completion = self._thoughts.separate(completion, request)
            self._keep(key, completion.plain(), began)
        return completion

    def _kind(self, stage: str, request: ChatRequest) -> Hashable:
        """Calls that a server may all refuse for the same reason have the same kind."""
        begun, weighed = bool(request.reply_start), bool(request.weigh_after)
        kind = (stage, begun, weighed)
        if stage in self._ledger.stages and not (begun or weighed):  # also by an earlier start
            self._refusals.answered(kind)
        return kind

    def _keep(self, key: CallKey, result: dict[str, Any], began: float) -> None:
        tokens = result["prompt_tokens"], result["completion_tokens"]
        cost = cost_of(self._config.price, *tokens)
        self._cache.put(key, result, cost, time.monotonic() - began)
        cached, truncated = result.get("cached_tokens", 0), int(was_truncated(result))
        self._ledger.add(key.stage, StageTotals(1, *tokens, cost, cached, truncated))

    def _most(self, request: ChatRequest) -> float:
        """The most that a request can cost, however its server counts tokens: a token is at least one byte."""
        if self._config.price is None:  # counting reads the whole prompt
            return 0.0
        size = len(request.prompt.encode()) + len(request.reply_start.encode()) + self._margin
        return cost_of(self._config.price, size, request.sampling.max_new_tokens)

    async def close(self) -> None:
        """Closes the model."""
        await self._model.close()

    def _fit(self, render: Callable[[str], str], context: str, limit: int) -> str:
        try:
            return cut_middle(
                context, self._tokenizer, lambda text: chat_tokens(render(text), self._tokenizer, self._config), limit
            )
        except TextTooLong as error:
            raise CallFailed(f"the prompt does not fit the model's window: {error}") from None

    def _minute_tokens(self, request: ChatRequest) -> int:
        """About what a provider counts against the tokens per minute: most texts have at least three bytes a token."""
        size = len(request.prompt.encode()) + len((self._config.system or "").encode())
        return size // 3 + request.sampling.max_new_tokens


def _seed_of(name: str) -> int:
    """A seed in [0, 2^31) that the name determines."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1
