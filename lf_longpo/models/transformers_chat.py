"""Chat with a model in this process: requests that arrive together are answered as one batch.

Each row of a batch keeps its own temperature, top-p, presence penalty and seed. Sampling uses the Gumbel-max trick:
adding Gumbel noise to the log-probabilities and taking the largest is the same as drawing from them. Each row has a
generator of its own, so that its draw does not depend on the other rows of the batch.
"""

import asyncio
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from lf_longpo.config import ChatConfig
from lf_longpo.errors import CallFailed, UserError, first_line
from lf_longpo.models.batching import Waiting, choose_batch
from lf_longpo.models.cache import CUT_OFF
from lf_longpo.models.chat import ChatRequest, Completion, token_after, weights_after
from lf_longpo.models.devices import pick_device
from lf_longpo.models.embedded import resolve
from lf_longpo.models.folders import check_chat_folders
from lf_longpo.models.kv_cache import PromptReader, share_heads
from lf_longpo.models.memory_shortage import free_memory, is_memory_shortage
from lf_longpo.models.number_format import local_dtype
from lf_longpo.models.thoughts import has_special_marks, opened_thought
from lf_longpo.models.tokenizers import chat_ids, load_chat_tokenizer

# Prompt tokens that a batch reads at once; a longer prompt goes alone. A few thousand keep a CPU busy, and a row
# without padding takes the CPU's fast causal attention.
_READ_TOKENS = {"cuda": 65_536, "mps": 65_536, "cpu": 4_096}
# Tokens in the KV cache of a batch.
_KEPT_TOKENS = 65_536
# transformers builds a model on a device that is set for the whole process, so two cannot be loaded at once.
_LOADING = threading.Lock()
# Number of likeliest tokens for requests with `weigh_after`.
_ALTERNATIVES = 256
# A batch starts when no request has arrived for this time.
_GATHER_SECONDS = 0.05


@dataclass(slots=True)
class _Waiting:
    request: ChatRequest
    ids: np.ndarray
    since: int
    """Number of batches that were taken before it arrived."""
    opened: str
    """The mark with which the prompt opens a thought, if it does."""
    done: "asyncio.Future[Completion]"


class TransformersChat:
    """A `ChatModel` on the local CPU or GPU."""

    continues_replies = True

    def __init__(self, config: ChatConfig) -> None:
        self._config = config
        self.limit = config.calls_at_once
        self._model: Any = None  # a PreTrainedModel after `start`
        self._reader: PromptReader | None = None
        self._waiting: list[_Waiting] = []
        self._batches = 0
        self._most_kept = _KEPT_TOKENS
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> int | None:
        """Loads the model and merges the adapter. Its window is that of the model's configuration."""
        check_chat_folders(self._config)
        await asyncio.to_thread(self._load_alone)
        self._worker = asyncio.create_task(self._serve())
        return getattr(self._model.config, "max_position_embeddings", None)

    async def complete(self, request: ChatRequest) -> Completion:
        """Queues the request for the next batch; see `ChatModel.complete`."""
        ids = await asyncio.to_thread(chat_ids, request.prompt, self._tokenizer, self._config, request.reply_start)
        done = asyncio.get_running_loop().create_future()
        opened = opened_thought(ids, request, self._tokenizer)
        waiting = _Waiting(request, np.array(ids, dtype=np.int32), self._batches, opened, done)
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.done

    async def close(self) -> None:
        """Stops, also in the middle of a batch, and frees the model."""
        self._closing = True
        if self._worker:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._model = self._reader = None

    def _load_alone(self) -> None:
        with _LOADING:
            self._load()

    def _load(self) -> None:
        config = self._config
        self._tokenizer = load_chat_tokenizer(config)
        self._skips_special = not has_special_marks(self._tokenizer)
        self._device = torch.device(pick_device(config.device, "device"))
        dtype = local_dtype(self._device.type, config.dtype)
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                resolve(config.model), dtype=dtype, trust_remote_code=config.trust_remote_code
            )
        except Exception as error:  # missing or broken weights, code written for another transformers
            raise UserError(f"cannot load the model {config.model!r}: {first_line(error)}") from None
        if config.adapter:
            from peft import PeftModel

            try:
                model = PeftModel.from_pretrained(model, config.adapter).merge_and_unload()
            except Exception as error:  # missing or broken weights, an adapter of another model
                raise UserError(f"cannot load the adapter {config.adapter}: {first_line(error)}") from None
        self._model = model.to(self._device).eval()
        # Keys and values of a common beginning can be reused if every layer attends to all of it.
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
        self._shares = kinds == {"full_attention"} and not getattr(model.config, "sliding_window", None)
        if self._shares and self._device.type == "cpu":
            share_heads(self._model)
            self._reader = PromptReader(self._model)
        ends = model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends]) | {self._tokenizer.eos_token_id}
        self._ends.discard(None)
        self._pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else min(self._ends)

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            await self._gather()
            batch, shared = self._take_batch()
            try:
                completions = await asyncio.to_thread(self._generate, batch, shared)
            except Exception as error:
                fault, completions = CallFailed(f"{type(error).__name__}: {error}"), None
                too_large = len(batch) > 1 and is_memory_shortage(error)
            if completions is not None:
                for waiting, completion in zip(batch, completions, strict=True):
                    if not waiting.done.done():
                        waiting.done.set_result(completion)
            elif too_large:
                await asyncio.to_thread(free_memory)
                self._try_fewer(batch)
            else:  # this batch is lost, the next may work
                for waiting in batch:
                    if not waiting.done.done():
                        waiting.done.set_exception(fault)

    def _try_fewer(self, batch: list[_Waiting]) -> None:
        """Puts back a batch that was too large for the memory. From now on, batches are at most half as large."""
        self._most_kept = max(len(waiting.ids) for waiting in batch) * len(batch) // 2
        self._waiting = [waiting for waiting in batch if not waiting.done.done()] + self._waiting
        if self._waiting:
            self._arrived.set()

    async def _gather(self) -> None:
        """Waits for more requests, then sorts them.

        The last bits of a row's numbers depend on the other rows of the batch. So the batches follow from the requests
        and not from the moment of their arrival, and a run can be repeated.
        """
        arrived = 0
        while arrived < len(self._waiting) < self.limit:
            arrived = len(self._waiting)
            await asyncio.sleep(_GATHER_SECONDS)
        # Several verdicts about one response share their seed.
        self._waiting.sort(key=lambda row: (row.since, row.request.seed, row.request.prompt, row.request.reply_start))

    def _take_batch(self) -> tuple[list[_Waiting], int]:
        waiting = [Waiting(row.ids, row.request.sampling.max_new_tokens) for row in self._waiting]
        rows, shared = choose_batch(waiting, self.limit, _READ_TOKENS[self._device.type], self._most_kept, self._shares)
        batch = [self._waiting[row] for row in rows]
        taken = set(rows)
        self._batches += 1
        self._waiting = [waiting for row, waiting in enumerate(self._waiting) if row not in taken]
        if not self._waiting:
            self._arrived.clear()
        return batch, shared

    @torch.inference_mode()
    def _generate(self, batch: list[_Waiting], shared: int) -> list[Completion]:
        """Answers a batch. Rows that have ended are taken out of it, because each row costs time in every step."""
        width = max(len(waiting.ids) for waiting in batch)
        limits = [waiting.request.sampling.max_new_tokens for waiting in batch]
        ids, mask = self._padded(batch, shared, width)
        cache: Cache | None = None
        if self._reader:
            cache = self._reader.read([waiting.ids for waiting in batch], shared, max(limits))
        elif self._shares:
            cache = self._read(ids[:1, :shared], len(batch)) if shared else DynamicCache(config=self._model.config)
        # Otherwise layers have a state or a window: the model makes the cache, and rows cannot be taken out of it.
        sampler = _RowSampler([waiting.request for waiting in batch], width, self._device)
        written: list[list[int]] = [[] for _ in batch]
        while sampler.rows:
            ended = _Ended(width, [limits[row] for row in sampler.rows], self._ends)
            ids = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                max_new_tokens=width + max(ended.limits) - ids.shape[1],
                do_sample=False,
                repetition_penalty=1.0,  # the model's own default would change the sampling settings
                stopping_criteria=StoppingCriteriaList([self._stopped, *([ended.most] if cache is not None else [])]),
                logits_processor=LogitsProcessorList([sampler]),
                eos_token_id=sorted(self._ends),
                pad_token_id=self._pad,
            )
            done = ended.rows(ids)
            for row, new, over in zip(sampler.rows, ids[:, width:].tolist(), done.tolist(), strict=True):
                if over or self._closing:
                    written[row] = new
            left = (~done).nonzero().flatten() if not self._closing else done.new_zeros(0, dtype=torch.long)
            sampler.keep(left.tolist())
            if sampler.rows and cache is not None:
                ids, mask = ids[left], F.pad(mask[left], (0, ids.shape[1] - mask.shape[1]), value=1)
                cache.batch_select_indices(left)
        return [self._completion(waiting, written[row], sampler, row) for row, waiting in enumerate(batch)]

    def _padded(self, batch: list[_Waiting], shared: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and mask, each of shape (B, width), padded on the left."""
        rows = torch.full((len(batch), width), self._pad)
        mask = torch.zeros_like(rows)
        # The common beginning stands at the same positions in each row, where it is read once for all rows.
        shared = 0 if self._reader else shared
        for row, waiting in enumerate(batch):
            ids = torch.from_numpy(waiting.ids)
            rows[row, :shared], mask[row, :shared] = ids[:shared], 1
            rows[row, width - len(ids) + shared :], mask[row, width - len(ids) + shared :] = ids[shared:], 1
        return rows.to(self._device), mask.to(self._device)

    def _read(self, ids: torch.Tensor, rows: int) -> DynamicCache:
        """The cache of a common beginning `ids`, shape (1, length), repeated for each of `rows` rows."""
        cache = DynamicCache(config=self._model.config)
        self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(rows)
        return cache

    def _stopped(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.Tensor:
        """Ends a batch after `close`: a thread cannot be cancelled."""
        return torch.full((input_ids.shape[0],), self._closing, dtype=torch.bool, device=input_ids.device)

    def _completion(self, waiting: _Waiting, new_ids: list[int], sampler: "_RowSampler", row: int) -> Completion:
        limit = waiting.request.sampling.max_new_tokens
        length = next((index for index, token in enumerate(new_ids) if token in self._ends), len(new_ids))
        length = min(length, limit)
        return Completion(
            text=waiting.opened + self._text(new_ids[:length], skip_special_tokens=self._skips_special),
            prompt_tokens=len(waiting.ids),
            completion_tokens=length,
            finish_reason=CUT_OFF if length == limit else "stop",
            weights=self._weights(waiting.request, new_ids[:length], sampler, row),
        )

    def _weights(
        self, request: ChatRequest, new_ids: list[int], sampler: "_RowSampler", row: int
    ) -> dict[str, float] | None:
        if not request.weigh_after:
            return None
        # The token that ends the reply has no text, but its alternatives may have one.
        tokens = [*(self._text([token]) for token in new_ids), "\0"]
        found = token_after(request.weigh_after, request.reply_start, tokens)
        if found is None:
            return None
        step, held = found
        likeliest = sampler.likeliest(row, step)
        return weights_after(held, ((self._text([token]), weight) for token, weight in likeliest))

    def _text(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))


class _Ended:
    """Which rows of a batch have ended.

    Args:
        width: position of the first new token.
        limits: most new tokens of each row.
        ends: tokens that end a reply.
    """

    def __init__(self, width: int, limits: list[int], ends: Collection[int]) -> None:
        self._width = width
        self.limits = limits
        self._ends = torch.tensor(sorted(ends))

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Whether each row has ended, bool, shape (B,)."""
        new = ids[:, self._width :]
        over = torch.tensor(self.limits, device=ids.device) <= new.shape[1]
        return over | torch.isin(new, self._ends.to(ids.device)).any(1)

    def most(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.Tensor:
        """Stops all rows when half of them have ended."""
        done = self.rows(input_ids)
        return torch.full_like(done, bool(2 * done.sum() >= len(done)))


class _RowSampler(LogitsProcessor):
    """Samples each row of a batch by its own request, as a processor of greedy decoding.

    Presence penalty as OpenAI defines it (subtracted once from each token already in the output), then temperature,
    then top-p, then Gumbel noise. Temperature 0 leaves the row greedy.
    """

    def __init__(self, requests: list[ChatRequest], prompt_width: int, device: torch.device | str) -> None:
        self.rows = list(range(len(requests)))
        """Rows of the first batch that are still in it."""
        self._width = prompt_width
        self._requests = requests
        self._generators = [torch.Generator(device).manual_seed(request.seed) for request in requests]
        self._likeliest: list[dict[int, tuple[torch.Tensor, torch.Tensor]]] = []

    def keep(self, positions: list[int]) -> None:
        """Keeps these rows of the present batch."""
        self.rows = [self.rows[position] for position in positions]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.float().clone()
        requests = [self._requests[row] for row in self.rows]
        self._likeliest.append(self._weigh([request.weigh_after for request in requests], scores))
        for position, request in enumerate(requests):
            written = torch.unique(input_ids[position, self._width :])
            scores[position, written] -= request.sampling.presence_penalty
        drawn = [position for position, request in enumerate(requests) if request.sampling.temperature > 0]
        if drawn:
            temperatures = scores.new_tensor([[requests[position].sampling.temperature] for position in drawn])
            top_p = scores.new_tensor([[requests[position].sampling.top_p] for position in drawn])
            log_probabilities = _nucleus(torch.log_softmax(scores[drawn] / temperatures, dim=-1), top_p)
            noise = torch.stack([self._gumbel(self.rows[position], scores) for position in drawn])
            scores[drawn] = log_probabilities + noise
        return scores

    def likeliest(self, row: int, step: int) -> list[tuple[int, float]]:
        """Likeliest tokens and their probabilities in a step of a row; empty after the row's end."""
        if step >= len(self._likeliest) or row not in self._likeliest[step]:
            return []
        values, ids = self._likeliest[step][row]
        return list(zip(ids.tolist(), values.tolist(), strict=True))

    def _weigh(self, weigh_after: list[str], scores: torch.Tensor) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        weighing = [position for position, mark in enumerate(weigh_after) if mark]
        if not weighing:
            return {}
        probabilities = torch.softmax(scores[weighing], dim=-1)
        values, ids = probabilities.topk(min(_ALTERNATIVES, scores.shape[-1]), dim=-1)
        return {self.rows[position]: (values[i], ids[i]) for i, position in enumerate(weighing)}

    def _gumbel(self, row: int, scores: torch.Tensor) -> torch.Tensor:
        uniform = torch.rand(scores.shape[1], generator=self._generators[row], device=scores.device)
        return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))


def _nucleus(log_probabilities: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Keeps the fewest tokens of each row whose probabilities sum to `top_p`; all other tokens become -inf.

    Args:
        log_probabilities: shape (B, vocabulary).
        top_p: shape (B, 1).
    """
    if bool((top_p >= 1).all()):
        return log_probabilities
    width = log_probabilities.shape[-1]
    # Almost always a few hundred tokens hold top_p; sorting the whole vocabulary costs more than the model here.
    for candidates in (min(512, width), width):
        values, order = log_probabilities.topk(candidates, dim=-1)
        before = values.exp().cumsum(-1) - values.exp()
        if bool((before[:, -1:] >= top_p).all()):
            break
    kept = torch.where(before < top_p, values, -torch.inf)
    cut = torch.full_like(log_probabilities, -torch.inf).scatter(-1, order, kept)
    return torch.where(top_p < 1, cut, log_probabilities)
