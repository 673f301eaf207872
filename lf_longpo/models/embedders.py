"""Embedders: texts to unit vectors, so that a dot product is a cosine similarity."""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lf_longpo.aio import all_settled
from lf_longpo.config import EmbedderConfig
from lf_longpo.errors import CallFailed, Refused, UserError, first_line
from lf_longpo.models.cache import CallCache, CallKey, StageTotals, request_hash
from lf_longpo.models.embedded import resolve
from lf_longpo.models.ledger import Ledger, cost_of
from lf_longpo.models.refusals import Refusals

_END_MARKS = 8

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Embedder(Protocol):
    """Turns texts into vectors."""

    async def start(self) -> None:
        """Gets ready.

        Raises:
            UserError: the model cannot be used.
        """
        ...

    async def embed(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of `texts`, float32, shape (len(texts), dimensions).

        Args:
            question: id of the question (or context) that the texts belong to; names the calls that are kept.
            texts: at least one.

        Raises:
            CallFailed: a call is lost for good.
            BudgetSpent: a call could cost more than the budget leaves.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections and memory."""
        ...


def make_embedder(config: EmbedderConfig, cache: CallCache, ledger: Ledger) -> Embedder:
    """The embedder that `config` names, not started yet."""
    return OpenAIEmbedder(config, cache, ledger) if config.backend == "openai" else LocalEmbedder(config)


class LocalEmbedder:
    """A sentence-transformers model in this process."""

    def __init__(self, config: EmbedderConfig) -> None:
        self._config = config
        # A model's forward passes take turns: threads beside each other would fight for the same cores.
        self._turn = asyncio.Lock()
        self._model: SentenceTransformer | None = None

    async def start(self) -> None:
        """Loads the model; see `Embedder.start`."""
        async with self._turn:
            self._model = self._model or await asyncio.to_thread(self._load)

    async def embed(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.embed`."""
        if self._model is None:
            await self.start()
        async with self._turn:
            return await asyncio.to_thread(
                self._model.encode,
                list(texts),
                batch_size=self._config.batch_size,
                normalize_embeddings=True,
                show_progress_bar=False,
            )

    async def close(self) -> None:
        """Frees the model."""
        self._model = None

    def _load(self) -> "SentenceTransformer":
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(resolve(self._config.model), trust_remote_code=self._config.trust_remote_code)
        except UserError:
            raise
        except Exception as error:  # missing files, broken weights, code written for another transformers
            raise UserError(f"embedder.model: cannot load {self._config.model!r}: {first_line(error)}") from None


class OpenAIEmbedder:
    """An embedding model behind an OpenAI-compatible server; finished calls are kept in the call cache."""

    def __init__(self, config: EmbedderConfig, cache: CallCache, ledger: Ledger) -> None:
        from lf_longpo.models.openai_client import make_client

        self._config = config
        self._cache = cache
        self._ledger = ledger
        self._client = make_client(config.base_url, config.api_key_env, timeout=120, max_retries=8)
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._refusals = Refusals()

    async def start(self) -> None:
        """Embeds one word: finds a dead server, a wrong key or a wrong name; see `Embedder.start`."""
        try:
            await self._create(["ready"])
        except Refused as error:
            key = self._config.api_key_env
            raise UserError(
                f"embedder: {error}; check embedder.model, embedder.base_url and the key in {key}"
            ) from None
        except CallFailed as error:
            raise UserError(f"embedder: {error}; start the server or mend embedder.base_url") from None

    async def embed(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.embed`."""
        size = self._config.batch_size
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        vectors = await all_settled(*(self._kept(question, index, list(batch)) for index, batch in enumerate(batches)))
        stacked = np.concatenate(vectors)
        return stacked / np.linalg.norm(stacked, axis=1, keepdims=True)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def _kept(self, question: str, index: int, texts: list[str]) -> np.ndarray:
        key = CallKey("embed", question, index, request_hash({"model": self._config.model, "texts": texts}))
        kept = self._cache.get(key)
        if kept is None:
            most = cost_of(self._config.price, _most_tokens(texts), 0)
            async with self._slots, self._ledger.set_aside(most):
                began = time.monotonic()
                with self._refusals.watch(len(texts), question):  # servers have bounds on them
                    kept = await self._create(texts)
                cost = cost_of(self._config.price, kept["prompt_tokens"], 0)
                self._cache.put(key, kept, cost, time.monotonic() - began)
                self._ledger.add("embed", StageTotals(1, kept["prompt_tokens"], 0, cost))
        return np.array(kept["vectors"], dtype=np.float32)

    async def _create(self, texts: list[str]) -> dict[str, Any]:
        from lf_longpo.models.openai_client import plain_errors

        with plain_errors(self._config.base_url, self._config.api_key_env):
            reply = await self._client.embeddings.create(model=self._config.model, input=texts, encoding_format="float")
            ordered = sorted(reply.data, key=lambda item: item.index)
            vectors = [item.embedding for item in ordered]
            tokens = reply.usage.prompt_tokens if reply.usage else _most_tokens(texts)
        if len(vectors) != len(texts):
            raise CallFailed(f"the embedding server sent {len(vectors)} vectors for {len(texts)} texts")
        return {"vectors": vectors, "prompt_tokens": tokens}


def _most_tokens(texts: Sequence[str]) -> int:
    """A bound on the tokens of texts, whatever the model counts: a token is at least a byte, and some mark the ends."""
    return sum(len(text.encode()) + _END_MARKS for text in texts)
