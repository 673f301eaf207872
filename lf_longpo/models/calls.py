"""A chat model as a run uses it: bounded, tried again, remembered, counted, and never given too long a prompt."""

import asyncio
import hashlib
import json
import random
import time
import uuid
from collections.abc import Callable, Hashable
from dataclasses import replace
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
from lf_longpo.models.tokenizers import chat_tokens
from lf_longpo.models.turns import Turns
from lf_longpo.text.fitting import cut_middle

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# More tokens than any chat template adds to a user's message.
_TEMPLATE_MARGIN = 512
# Seconds before a lost call is made again: doubled each time, up to half of it random, so that calls which were lost
# together do not come back together.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0


class Calls:
    """A chat model with its call cache.

    Args:
        model: the backend, not started yet.
        config: its configuration.
        tokenizer: counts prompt tokens.
        cache: where finished calls are kept.
        ledger: told what each call took that was really made, and asked before it is made.
        seed: the run's seed; each call's own seed follows from it and the call's place in the run.
    """

    def __init__(
        self,
        model: ChatModel,
        config: ChatConfig,
        tokenizer: "PreTrainedTokenizerBase",
        cache: CallCache,
        ledger: Ledger,
        seed: int,
    ) -> None:
        self._model = model
        self._config = config
        self._tokenizer = tokenizer
        self._cache = cache
        self._seed = seed
        self._ledger = ledger
        self._turns = Turns(lambda: model.limit)
        self._requests = Quota(config.requests_per_minute, ledger.pause)
        self._tokens = Quota(config.tokens_per_minute, ledger.pause)
        # The path alone where there are no files to tell it from the next training's.
        self._adapter = fingerprint(config.adapter) or config.adapter
        self._under_way: Once[Completion] = Once(0)
        self._started: Once[None] = Once(1)
        self._refusals = Refusals()
        self._window = 0
        self._margin = _TEMPLATE_MARGIN + len(json.dumps(config.request_settings).encode())

    async def start(self) -> None:
        """Starts the model and settles its context window, once; otherwise the first call does it.

        Raises:
            UserError: the model cannot be used, or nobody knows its window.
        """
        await self._started.get(None, self._start)

    async def _start(self) -> None:
        told = await self._model.start()
        known = self._tokenizer.model_max_length
        window = self._config.context_window or told or (known if known < 100_000_000 else None)
        if window is None:
            raise UserError(f"nobody tells the context window of {self._config.model!r}; set context_window beside it")
        self._window = window

    async def complete(
        self,
        stage: str,
        question: str,
        round: int,
        sampling: SamplingConfig,
        render: Callable[[str], str],
        context: str,
        max_prompt_tokens: int | None = None,
        reply_start: str = "",
        weigh_after: str = "",
        behind: int = 0,
    ) -> Completion:
        """Answers `render(context)`, from the cache where this call was finished before.

        Args:
            stage: the stage's name, part of the key.
            question: the question's id, part of the key.
            round: round or sample, part of the key.
            sampling: how to sample.
            render: puts a context into the prompt.
            context: cut in its middle where the prompt would not fit the window.
            max_prompt_tokens: a bound below the window's, if any.
            reply_start: see `ChatRequest`.
            weigh_after: see `ChatRequest`.
            behind: calls that wait for this one's answer, one after the other; long chains go first at the run's end.

        Raises:
            CallFailed: the call is lost, or the prompt does not fit even without context.
            Unfinished: no more calls are to be made.
            UserError: no call can work.
        """
        if not self._window:
            await self.start()
        limit = self._window - sampling.max_new_tokens - len(self._tokenizer.tokenize(reply_start))
        if max_prompt_tokens is not None:
            limit = min(limit, max_prompt_tokens)
        prompt = render(context)
        # A token is at least one byte, so a short prompt needs no counting; the margin is for the chat template.
        if len(prompt.encode()) + self._margin > limit:
            prompt = render(await asyncio.to_thread(self._fit, render, context, limit))
        place = f"{self._seed}/{stage}/{question}/{round}"
        request = ChatRequest(prompt, sampling, _seed_of(place), reply_start, weigh_after, question)
        model = {"model": self._config.model, "adapter": self._adapter, **self._config.request_settings}
        identity = model | request.identity()
        key = CallKey(stage, question, round, request_hash(identity))
        kept = self._cache.get(key)
        if kept is not None:
            return record_of(Completion, kept)
        return await self._under_way.get(key, lambda: self._make(key, request, behind))

    @property
    def window(self) -> int:
        """Prompt and new tokens that the model takes together; 0 before it is started."""
        return self._window

    @property
    def continues_replies(self) -> bool:
        """Whether the model honours `reply_start`."""
        return self._model.continues_replies

    async def _make(self, key: CallKey, request: ChatRequest, behind: int) -> Completion:
        tries = 0
        while True:
            try:
                return await self._try(key, request, behind)
            except NoServer as error:
                await self._ledger.pause(error.after)
            except TryAgain as error:
                if tries == self._config.max_retries:
                    raise
                wait = min(_FIRST_WAIT * 2**tries, _LONGEST_WAIT) * random.uniform(0.5, 1.0)
                await self._ledger.pause(max(error.after, wait))
                tries += 1
                # Another server may do better.
                request = replace(request, affinity=f"{key.question}/{tries}")

    async def _try(self, key: CallKey, request: ChatRequest, behind: int) -> Completion:
        async with self._turns.take(behind):
            await self._requests.take(1)
            if self._config.tokens_per_minute:  # counting reads the whole prompt
                await self._tokens.take(self._minute_tokens(request))
            return await self._ask(key, request)

    async def _ask(self, key: CallKey, request: ChatRequest) -> Completion:
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
            if not completion.prompt_tokens:  # a server that does not tell; what it charges for is counted here
                used = chat_tokens(request.prompt, self._tokenizer, self._config), len(self._tokenizer.tokenize(completion.text))
                completion = replace(completion, prompt_tokens=used[0], completion_tokens=used[1])
            self._keep(key, completion.plain(), began)
        return completion

    def _kind(self, stage: str, request: ChatRequest) -> Hashable:
        """What decides whether a server can refuse all calls for the same reason."""
        begun, weighed = bool(request.reply_start), bool(request.weigh_after)
        kind = (stage, begun, weighed)
        if stage in self._ledger.stages and not (begun or weighed):  # by an earlier start, too
            self._refusals.answered(kind)
        return kind

    def _keep(self, key: CallKey, result: dict[str, Any], began: float) -> None:
        tokens = result["prompt_tokens"], result["completion_tokens"]
        cost = cost_of(self._config.price, *tokens)
        self._cache.put(key, result, cost, time.monotonic() - began)
        cached, truncated = result.get("cached_tokens", 0), int(was_truncated(result))
        self._ledger.add(key.stage, StageTotals(1, *tokens, cost, cached, truncated))

    def _most(self, request: ChatRequest) -> float:
        """The most a request can cost, whatever tokens its server counts: a token is at least one byte."""
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
        """About what a provider counts against the minute's tokens: most texts have three bytes a token or more."""
        size = len(request.prompt.encode()) + len((self._config.system or "").encode())
        return size // 3 + request.sampling.max_new_tokens


def _seed_of(place: str) -> int:
    """A seed in [0, 2^31) that the place determines."""
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:4], "big") >> 1
