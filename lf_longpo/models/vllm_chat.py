"""Chat with vLLM's engine in this process, without a server.

The engine runs the GPUs in processes of its own. It batches requests, and computes a common beginning of prompts once.
"""

import asyncio
import json
import math
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.config import ChatConfig, SamplingConfig
from lf_longpo.config.request_settings import TEMPLATE_KWARGS
from lf_longpo.errors import CallFailed, TryAgain, UserError, first_line
from lf_longpo.models.cache import CUT_OFF
from lf_longpo.models.chat import ChatRequest, Completion, token_after, weights_after
from lf_longpo.models.embedded import resolve
from lf_longpo.models.folders import check_chat_folders
from lf_longpo.models.thoughts import has_special_marks, opened_thought
from lf_longpo.models.tokenizers import chat_ids, load_chat_tokenizer

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import CompletionOutput

# The most alternatives for each token that the engine reports; the same as on its server.
_ALTERNATIVES = 20


class VLLMChat:
    """A `ChatModel` on this machine's GPUs."""

    continues_replies = True

    def __init__(self, config: ChatConfig) -> None:
        self._config = config
        self.limit = config.calls_at_once
        self._engine: Any = None
        extra = config.extra_body or {}
        self._extra: dict[str, Any] = {name: extra[name] for name in extra if name != TEMPLATE_KWARGS}

    async def start(self) -> int | None:
        """Loads the model. Its window is the engine's."""
        check_chat_folders(self._config)
        self._tokenizer = load_chat_tokenizer(self._config)
        self._skips_special = not has_special_marks(self._tokenizer)
        self._engine = await asyncio.to_thread(self._load)
        return int(self._engine.model_config.max_model_len)

    async def complete(self, request: ChatRequest) -> Completion:
        """Hands the request to the engine; see `ChatModel.complete`."""
        from vllm.v1.engine.exceptions import EngineDeadError

        ids = await asyncio.to_thread(chat_ids, request.prompt, self._tokenizer, self._config, request.reply_start)
        opened = opened_thought(ids, request, self._tokenizer)
        prompt = {"prompt_token_ids": ids}
        outputs = []
        try:
            async for output in self._engine.generate(
                prompt, self._sampling(request), uuid.uuid4().hex, lora_request=self._adapter
            ):
                outputs.append(output)
        except EngineDeadError:
            raise UserError(
                "the vLLM engine has died; see its log, then run the same command again to resume"
            ) from None
        except ValueError as error:  # a prompt beyond the window
            raise CallFailed(f"vLLM: {first_line(error)}") from None
        if not outputs or outputs[-1].outputs[0].finish_reason not in ("stop", CUT_OFF):
            raise TryAgain("vLLM aborted the request")
        answer = outputs[-1].outputs[0]
        return Completion(
            text=opened + answer.text,
            prompt_tokens=len(ids),
            completion_tokens=len(answer.token_ids),
            finish_reason=answer.finish_reason or "unknown",
            cached_tokens=outputs[-1].num_cached_tokens or 0,
            weights=_weights(answer, request) if request.weigh_after else None,
        )

    async def close(self) -> None:
        """Ends the engine's processes."""
        if self._engine:
            await asyncio.to_thread(self._engine.shutdown)
        self._engine = None

    def _load(self) -> Any:
        try:
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise UserError(f"backend: vllm needs vLLM ({error}); run `pip install -e '.[vllm]'`") from None
        self._check_sampling()
        config = self._config
        given: dict[str, Any] = {"max_model_len": config.context_window} if config.context_window else {}
        self._adapter = None
        if config.adapter:
            from vllm.lora.request import LoRARequest

            self._adapter = LoRARequest("adapter", 1, config.adapter)
            given |= {"enable_lora": True, "max_lora_rank": _rank(config.adapter)}
        # The engine's processes inherit the blocked signal: Ctrl-C is for the run, which waits for calls in flight.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return AsyncLLM.from_engine_args(
                AsyncEngineArgs(
                    model=resolve(config.model),
                    tensor_parallel_size=config.tensor_parallel_size,
                    data_parallel_size=config.data_parallel_size,
                    max_num_seqs=config.max_concurrency,
                    enable_prefix_caching=True,
                    # The model's own defaults (top-k, repetition penalty) would change the sampling settings.
                    generation_config="vllm",
                    trust_remote_code=config.trust_remote_code,
                    disable_log_stats=True,
                    **given,
                )
            )
        except Exception as error:  # no GPU, too little memory, an unknown architecture
            raise UserError(f"vLLM cannot load {config.model!r}: {first_line(error)}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _sampling(self, request: ChatRequest) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            presence_penalty=sampling.presence_penalty,
            max_tokens=sampling.max_new_tokens,
            seed=request.seed if self._config.send_seed else None,
            logprobs=_ALTERNATIVES if request.weigh_after else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_special_tokens=self._skips_special,
            **self._extra,
        )

    def _check_sampling(self) -> None:
        """Finds parameters of extra_body with values that vLLM refuses, before the engine is loaded."""
        try:
            self._sampling(ChatRequest("", SamplingConfig(), 0))
        except (TypeError, ValueError) as error:
            raise UserError(f"extra_body: vLLM refuses a parameter: {first_line(error)}; fix its value") from None


def _rank(adapter: str) -> int:
    """The adapter's rank, which the engine needs before it loads the adapter."""
    path = Path(adapter) / "adapter_config.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot load the adapter {adapter}: {path} cannot be read ({first_line(error)}); copy the adapter again"
        ) from None


def _weights(answer: "CompletionOutput", request: ChatRequest) -> dict[str, float] | None:
    steps = answer.logprobs or []
    tokens = [step[token].decoded_token or "" for step, token in zip(steps, answer.token_ids, strict=False)]
    found = token_after(request.weigh_after, request.reply_start, tokens)
    if found is None:
        return None
    index, held = found
    likeliest = sorted(steps[index].values(), key=lambda token: -token.logprob)
    return weights_after(held, ((token.decoded_token or "", math.exp(token.logprob)) for token in likeliest))
