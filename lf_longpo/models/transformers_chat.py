"""Chat with a model in this process: requests that arrive together are answered as one batch.

Each row of a batch keeps its own temperature, top-p, presence penalty and seed. Sampling is done by the Gumbel-max
trick: adding Gumbel noise to the log-probabilities and taking the largest is the same as drawing from them, and noise
from a generator of the row's own makes the draw independent of the rows that happen to share the batch.
"""

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from lf_longpo.config import ChatConfig
from lf_longpo.errors import CallFailed, UserError, first_line
from lf_longpo.models.batching import Waiting, choose_batch
from lf_longpo.models.cache import CUT_OFF
from lf_longpo.models.chat import ChatRequest, Completion, token_behind, weights_behind
from lf_longpo.models.embedded import resolve
from lf_longpo.models.memory import free_memory, is_memory_shortage
from lf_longpo.models.tokenizers import chat_ids, load_chat_tokenizer

# Prompt tokens that a batch reads at once; one longer prompt goes alone. A CPU is busy with a few thousand, and one row
# without padding takes its fast causal attention.
_READ_TOKENS = {"cuda": 65_536, "cpu": 4_096}
# Tokens whose keys and values a batch may hold.
_KEPT_TOKENS = 65_536
# transformers builds a model on a device that is set for the whole process, so that two cannot be loaded at once.
_LOADING = threading.Lock()
# Likeliest tokens that are told for a request that weighs.
_ALTERNATIVES = 256
# A batch waits for company until nobody has come for so long.
_GATHER_SECONDS = 0.05


@dataclass(slots=True)
class _Waiting:
    request: ChatRequest
    ids: np.ndarray
    since: int
    """Batches that were taken before it came."""
    done: "asyncio.Future[Completion]"


class TransformersChat:
    """A `ChatModel` on the local CPU or GPU."""

    continues_replies = True

    def __init__(self, config: ChatConfig) -> None:
        self._config = config
        self.limit = config.calls_at_once
        self._waiting: list[_Waiting] = []
        self._batches = 0
        self._most_kept = _KEPT_TOKENS
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> int | None:
        """Loads the model (and merges the adapter); its window is what its configuration says."""
        await asyncio.to_thread(self._load_alone)
        self._worker = asyncio.create_task(self._serve())
        return getattr(self._model.config, "max_position_embeddings", None)

    async def complete(self, request: ChatRequest) -> Completion:
        """Queues the request for the next batch; see `ChatModel.complete`."""
        ids = await asyncio.to_thread(chat_ids, request.prompt, self._tokenizer, request.reply_start)
        done = asyncio.get_running_loop().create_future()
        waiting = _Waiting(request, np.array(ids, dtype=np.int32), self._batches, done)
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.done

    async def close(self) -> None:
        """Stops answering, in the middle of a batch too, and frees the model."""
        self._closing = True
        if self._worker:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._model = None

    def _load_alone(self) -> None:
        with _LOADING:
            self._load()

    def _load(self) -> None:
        config = self._config
        self._tokenizer = load_chat_tokenizer(config)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype: Any = "auto" if self._device == "cuda" else _cpu_dtype()
        try:
            model = AutoModelForCausalLM.from_pretrained(
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
        # Keys and values of a beginning can be handed on where every layer attends to all of it.
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
        self._shares = kinds == {"full_attention"} and not getattr(model.config, "sliding_window", None)
        ends = model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends]) | {self._tokenizer.eos_token_id}
        self._ends.discard(None)

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
            else:  # the batch is lost, the next may work
                for waiting in batch:
                    if not waiting.done.done():
                        waiting.done.set_exception(fault)

    def _try_fewer(self, batch: list[_Waiting]) -> None:
        """Puts a batch that was too large for the memory back; from now on batches are half as large at most."""
        self._most_kept = max(len(waiting.ids) for waiting in batch) * len(batch) // 2
        self._waiting = [waiting for waiting in batch if not waiting.done.done()] + self._waiting
        if self._waiting:
            self._arrived.set()

    async def _gather(self) -> None:
        """Waits for company, then puts the waiting in an order of their own.

        A row's last bits depend on what stands beside it. So what goes together should follow from what was asked, and
        not from who came a moment earlier: a run then repeats.
        """
        there = 0
        while there < len(self._waiting) < self.limit:
            there = len(self._waiting)
            await asyncio.sleep(_GATHER_SECONDS)
        # Several things that are asked of one answer share their seed.
        self._waiting.sort(key=lambda one: (one.since, one.request.seed, one.request.prompt, one.request.reply_start))

    def _take_batch(self) -> tuple[list[_Waiting], int]:
        waiting = [Waiting(one.ids, one.request.sampling.max_new_tokens) for one in self._waiting]
        rows, shared = choose_batch(waiting, self.limit, _READ_TOKENS[self._device], self._most_kept, self._shares)
        batch = [self._waiting[row] for row in rows]
        taken = set(rows)
        self._batches += 1
        self._waiting = [one for row, one in enumerate(self._waiting) if row not in taken]
        if not self._waiting:
            self._arrived.clear()
        return batch, shared

    @torch.inference_mode()
    def _generate(self, batch: list[_Waiting], shared: int) -> list[Completion]:
        width = max(len(waiting.ids) for waiting in batch)
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else next(iter(self._ends))
        rows = torch.full((len(batch), width), pad)
        mask = torch.zeros_like(rows)
        for row, waiting in enumerate(batch):
            # What is shared stands in the same place in each row; the padding comes behind it.
            ids = torch.from_numpy(waiting.ids)
            rows[row, :shared], mask[row, :shared] = ids[:shared], 1
            rows[row, width - len(ids) + shared :], mask[row, width - len(ids) + shared :] = ids[shared:], 1
        rows, mask = rows.to(self._device), mask.to(self._device)
        sampler = _RowSampler([waiting.request for waiting in batch], width, self._device)
        output = self._model.generate(
            input_ids=rows,
            attention_mask=mask,
            past_key_values=self._read(rows[:1, :shared], len(batch)) if shared else None,
            max_new_tokens=max(waiting.request.sampling.max_new_tokens for waiting in batch),
            do_sample=False,
            repetition_penalty=1.0,  # some models' own defaults would change what was asked for
            stopping_criteria=StoppingCriteriaList([self._stopped]),
            logits_processor=LogitsProcessorList([sampler]),
            eos_token_id=sorted(self._ends),
            pad_token_id=pad,
        )
        new = output[:, width:].tolist()
        return [self._completion(waiting, new[row], sampler, row) for row, waiting in enumerate(batch)]

    def _read(self, ids: torch.Tensor, rows: int) -> DynamicCache:
        """Keys and values of tokens, shape (1, length), that `rows` rows begin with."""
        cache = DynamicCache(config=self._model.config)
        self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(rows)
        return cache

    def _stopped(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.Tensor:
        """Ends a batch whose run was interrupted: a thread cannot be cancelled."""
        return torch.full((input_ids.shape[0],), self._closing, dtype=torch.bool, device=input_ids.device)

    def _completion(self, waiting: _Waiting, new_ids: list[int], sampler: "_RowSampler", row: int) -> Completion:
        limit = waiting.request.sampling.max_new_tokens
        length = next((index for index, token in enumerate(new_ids) if token in self._ends), len(new_ids))
        length = min(length, limit)
        return Completion(
            text=self._tokenizer.decode(new_ids[:length], skip_special_tokens=True),
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
        # What ends the reply is no text, but something may stand in its place.
        tokens = [*(self._tokenizer.decode([token]) for token in new_ids), "\0"]
        place = token_behind(request.weigh_after, request.reply_start, tokens)
        if place is None:
            return None
        step, held = place
        likeliest = sampler.likeliest(row, step)
        return weights_behind(held, ((self._tokenizer.decode([token]), weight) for token, weight in likeliest))


def _cpu_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies it natively (twice as fast), float32 elsewhere (bfloat16 would be emulated)."""
    can = torch.cpu.get_capabilities()
    return torch.bfloat16 if can.get("avx512_bf16") or can.get("amx_bf16") else torch.float32


class _RowSampler(LogitsProcessor):
    """Makes greedy decoding of a batch draw each row by that row's own request.

    Presence penalty as OpenAI defines it (subtracted once from each token already in the output), then temperature,
    then top-p, then Gumbel noise. Temperature 0 leaves the row greedy.
    """

    def __init__(self, requests: list[ChatRequest], prompt_width: int, device: str) -> None:
        self._width = prompt_width
        self._sampling = [request.sampling for request in requests]
        self._generators = [torch.Generator(device).manual_seed(request.seed) for request in requests]
        self._weighing = [row for row, request in enumerate(requests) if request.weigh_after]
        self._likeliest: list[torch.return_types.topk] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        scores = scores.float().clone()
        if self._weighing:
            probabilities = torch.softmax(scores[self._weighing], dim=-1)
            self._likeliest.append(probabilities.topk(min(_ALTERNATIVES, scores.shape[-1]), dim=-1))
        for row, sampling in enumerate(self._sampling):
            scores[row, input_ids[row, self._width :].unique()] -= sampling.presence_penalty
        drawn = [row for row, sampling in enumerate(self._sampling) if sampling.temperature > 0]
        if drawn:
            temperatures = scores.new_tensor([[self._sampling[row].temperature] for row in drawn])
            top_p = scores.new_tensor([[self._sampling[row].top_p] for row in drawn])
            log_probabilities = _nucleus(torch.log_softmax(scores[drawn] / temperatures, dim=-1), top_p)
            noise = torch.stack([self._gumbel(row, scores) for row in drawn])
            scores[drawn] = log_probabilities + noise
        return scores

    def likeliest(self, row: int, step: int) -> list[tuple[int, float]]:
        """Tokens and their probabilities in one step of a row that weighs; none where the batch ended before it."""
        if step >= len(self._likeliest):
            return []
        values, ids = self._likeliest[step]
        place = self._weighing.index(row)
        return list(zip(ids[place].tolist(), values[place].tolist(), strict=True))

    def _gumbel(self, row: int, scores: torch.Tensor) -> torch.Tensor:
        uniform = torch.rand(scores.shape[1], generator=self._generators[row], device=scores.device)
        return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))


def _nucleus(log_probabilities: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Leaves each row (vocabulary-wide) the fewest tokens that hold `top_p` (one a row); the others become -inf."""
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
