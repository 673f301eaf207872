"""A reward model in this process: sequence classification with one output.

It has the protocol of chat models, so that its calls are limited, cached and counted like theirs. A request holds the
prompt and, as `reply_start`, the whole response; the text of the completion is the score.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from lf_longpo.config import ChatConfig
from lf_longpo.errors import CallFailed, UserError, first_line
from lf_longpo.models.chat import ChatRequest, Completion, messages_of
from lf_longpo.models.devices import pick_device
from lf_longpo.models.embedded import resolve
from lf_longpo.models.folders import check_chat_folders
from lf_longpo.models.memory_shortage import free_memory, is_memory_shortage
from lf_longpo.models.number_format import local_dtype
from lf_longpo.models.tokenizers import load_chat_tokenizer

# Tokens that a batch reads at once, padding included; a longer sequence goes alone.
_READ_TOKENS = 65_536
# A batch starts when no request has arrived for this time.
_GATHER_SECONDS = 0.05
# The last bits of a score depend on the other rows of its batch; these digits do not.
_DIGITS = 5


@dataclass(slots=True)
class _Waiting:
    ids: list[int]
    done: "asyncio.Future[float]"


class RewardModel:
    """A `ChatModel` whose completions are scores."""

    continues_replies = True

    def __init__(self, config: ChatConfig) -> None:
        self._config = config
        self.limit = config.calls_at_once
        self._most_read = _READ_TOKENS
        self._model: Any = None  # a PreTrainedModel after `start`
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def start(self) -> int | None:
        """Loads the model. Its window is that of the model's configuration."""
        check_chat_folders(self._config)
        await asyncio.to_thread(self._load)
        self._worker = asyncio.create_task(self._serve())
        return getattr(self._model.config, "max_position_embeddings", None)

    async def complete(self, request: ChatRequest) -> Completion:
        """Queues the request for the next batch; see `ChatModel.complete`."""
        ids = await asyncio.to_thread(self._ids, request)
        waiting = _Waiting(ids, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        return Completion(str(await waiting.done), len(ids), 0, "stop")

    async def close(self) -> None:
        """Stops after the batch that is under way, and frees the model."""
        if self._worker:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._model = None

    def _load(self) -> None:
        config = self._config
        self._device = torch.device(pick_device(config.device, "device"))
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                resolve(config.model),
                dtype=local_dtype(self._device.type, config.dtype),
                trust_remote_code=config.trust_remote_code,
                output_loading_info=True,
            )
        except Exception as error:  # missing or broken weights, code written for another transformers
            raise UserError(f"cannot load the reward model {config.model!r}: {first_line(error)}") from None
        another = (
            "set judge.model to a model for sequence classification with one output, or judge.backend: transformers"
        )
        if missing := sorted(report["missing_keys"]):
            raise UserError(f"{config.model!r} is no reward model: it has no weights {missing[0]}; {another}")
        if model.config.num_labels != 1:
            raise UserError(f"{config.model!r} has {model.config.num_labels} outputs, not one; {another}")
        self._tokenizer = load_chat_tokenizer(config)
        self._model = model.to(self._device).eval()

    def _ids(self, request: ChatRequest) -> list[int]:
        """Token ids of prompt and response, by the model's chat template."""
        messages = messages_of(request.prompt, self._config.system)
        messages.append({"role": "assistant", "content": request.reply_start})
        arguments = self._config.template_arguments
        try:
            text: Any = self._tokenizer.apply_chat_template(messages, tokenize=False, **arguments)
        except Exception as error:  # a template is a program and may raise any error
            raise UserError(
                f"the chat template of {self._config.model} cannot render a response ({first_line(error)}); remove "
                "system or extra_body.chat_template_kwargs"
            ) from None
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            arrived = 0
            while arrived < len(self._waiting) < self.limit:
                arrived = len(self._waiting)
                await asyncio.sleep(_GATHER_SECONDS)
            batch = self._take_batch()
            try:
                scores = await asyncio.to_thread(self._scores, [row.ids for row in batch])
            except Exception as error:
                if len(batch) > 1 and is_memory_shortage(error):
                    await asyncio.to_thread(free_memory)
                    self._most_read = max(len(row.ids) for row in batch) * len(batch) // 2
                    self._waiting += batch
                    self._arrived.set()
                    continue
                for row in batch:  # these calls are lost, the next may work
                    if not row.done.done():
                        row.done.set_exception(CallFailed(f"{type(error).__name__}: {error}"))
                continue
            for row, score in zip(batch, scores, strict=True):
                if not row.done.done():
                    row.done.set_result(score)

    def _take_batch(self) -> list[_Waiting]:
        """The longest sequences: sequences of similar length need little padding."""
        self._waiting = sorted((row for row in self._waiting if not row.done.done()), key=lambda row: -len(row.ids))
        longest = len(self._waiting[0].ids) if self._waiting else 1
        rows = min(self.limit, max(1, self._most_read // longest))
        batch, self._waiting = self._waiting[:rows], self._waiting[rows:]
        if not self._waiting:
            self._arrived.clear()
        return batch

    @torch.inference_mode()
    def _scores(self, rows: list[list[int]]) -> list[float]:
        """The scores of sequences, padded on the right.

        The model reads a row's score at its last token that is not the padding token of its configuration. A model
        without one gets a token that no row holds, so that each row is scored as if it were alone.
        """
        if not rows:
            return []
        width = max(map(len, rows))
        given = self._model.config.pad_token_id
        used = {token for row in rows for token in row}
        pad = next(token for token in range(len(used) + 1) if token not in used) if given is None else given
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=self._device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._device)
        self._model.config.pad_token_id = pad
        try:
            logits = self._model(input_ids=ids, attention_mask=mask).logits
        finally:
            self._model.config.pad_token_id = given
        return [round(float(score), _DIGITS) for score in logits.float().flatten()]
