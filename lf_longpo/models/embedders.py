"""Embedders turn texts into unit vectors, so that a dot product is a cosine similarity."""

import asyncio
import sys
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lf_longpo.aio import all_settled
from lf_longpo.config import EmbedderConfig
from lf_longpo.config.providers import OPENAI_URL
from lf_longpo.errors import CallFailed, Refused, TryAgain, UserError, first_line
from lf_longpo.models.cache import CallCache, CallKey, StageTotals, request_hash
from lf_longpo.models.devices import pick_device, roomiest_device
from lf_longpo.models.embedded import resolve
from lf_longpo.models.folders import embedder_problem
from lf_longpo.models.hub import hub_problem
from lf_longpo.models.ledger import Ledger, cost_of
from lf_longpo.models.memory_shortage import free_memory, is_memory_shortage
from lf_longpo.models.openai_wire import used_tokens
from lf_longpo.models.refusals import Refusals
from lf_longpo.text.chunking import split_evenly

_END_MARKS = 8

if TYPE_CHECKING:
    from openai import AsyncOpenAI
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
            question: id of the question (or context) that the texts belong to; part of the key in the call cache.
            texts: at least one.

        Raises:
            CallFailed: a call is lost.
            BudgetSpent: a call could cost more than the budget leaves.
        """
        ...

    async def similarities(self, question: str, anchor: str, texts: Sequence[str]) -> np.ndarray:
        """Cosine similarity of each text to the anchor, float32, shape (len(texts),); otherwise as `embed`."""
        ...

    async def close(self) -> None:
        """Closes connections and frees memory."""
        ...


def make_embedder(config: EmbedderConfig, cache: CallCache, ledger: Ledger) -> Embedder:
    """Makes the embedder that `config` names, without starting it."""
    return OpenAIEmbedder(config, cache, ledger) if config.backend == "openai" else LocalEmbedder(config)


def check_embedder(config: EmbedderConfig) -> None:
    """Checks an embedder in this process by its name and files; nothing heavy is imported.

    Raises:
        UserError: there is no such folder or model on the hub.
    """
    setting = "embedder.model"
    if problem := embedder_problem(config.model, setting) or hub_problem(config.model, setting):
        raise UserError(f"{setting}: {problem}")


def unit_vectors(vectors: Any, texts: int, source: str) -> np.ndarray:
    """Checks and normalises the vectors of an embedder: float32, shape (texts, dimensions).

    Args:
        vectors: the output of the embedder.
        texts: number of texts.
        source: the embedder, for errors.

    Raises:
        CallFailed: the number of vectors or their lengths are wrong, or a vector is zero or not finite.
    """
    try:
        with np.errstate(over="ignore"):  # values beyond float32 become infinite and are found below
            array: np.ndarray = np.array(vectors, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise CallFailed(f"{source} sent vectors that cannot be read: {first_line(error)}") from None
    if array.ndim != 2 or array.shape[0] != texts or not array.shape[1]:
        raise CallFailed(f"{source} sent vectors of shape {array.shape} for {texts} texts")
    if not np.isfinite(array).all():
        raise CallFailed(f"{source} sent vectors with values that are not finite (NaN or infinity)")
    lengths = np.linalg.norm(array.astype(np.float64), axis=1, keepdims=True)
    if not lengths.all():
        raise CallFailed(f"{source} sent vectors of zeros, which have no direction")
    unit: np.ndarray = (array / lengths).astype(np.float32)
    return unit


class LocalEmbedder:
    """A sentence-transformers model in this process.

    A text that is longer than the model's window is embedded in pieces of equal length. Its vector is the direction of
    their mean, and its similarity is that of its most similar piece.

    Measured on 100 MuSiQue questions with minilm (`python scripts/compare_pooling.py musique_train.json 25 1500`): the
    four chunks of about 40 that are most similar to question and answer hold 0.59 of the supporting chunks by the first
    window alone, 0.93 by the mean and 0.99 by the most similar piece.
    """

    def __init__(self, config: EmbedderConfig) -> None:
        self._config = config
        self._batch_size = config.batch_size
        # Forward passes take turns: parallel threads would compete for the same cores.
        self._turn = asyncio.Lock()
        self._model: SentenceTransformer | None = None
        # Tokens that the model reads of a text, without special tokens; None if there is no limit.
        self._window: int | None = None
        self._reported = False

    async def start(self) -> None:
        """Loads the model; see `Embedder.start`."""
        async with self._turn:
            self._model = self._model or await asyncio.to_thread(self._load)

    async def embed(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.embed`."""
        vectors, firsts = await self._embed_pieces(texts)
        if len(vectors) == len(texts):
            return vectors
        return unit_vectors(np.add.reduceat(vectors, firsts), len(texts), self._source)

    async def similarities(self, question: str, anchor: str, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.similarities`."""
        vectors, firsts = await self._embed_pieces([anchor, *texts])
        first = firsts[1]
        [direction] = unit_vectors(vectors[:first].sum(0, keepdims=True), 1, self._source)
        alike: np.ndarray = np.maximum.reduceat(vectors[first:] @ direction, firsts[1:] - first)
        return alike

    async def close(self) -> None:
        """Frees the model."""
        self._model = None

    @property
    def _source(self) -> str:
        return f"the embedder {self._config.model}"

    async def _embed_pieces(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors of the pieces of all texts, and the row of each text's first piece."""
        await self.start()
        async with self._turn:
            pieces = await asyncio.to_thread(lambda: [self._pieces(text) for text in texts])
            flat = [piece for parts in pieces for piece in parts]
            vectors = await asyncio.to_thread(self._encode, flat)
        firsts = np.array([0, *accumulate(map(len, pieces))][:-1])
        return unit_vectors(vectors, len(flat), self._source), firsts

    def _pieces(self, text: str) -> list[str]:
        """The text in as few pieces of about equal length as fit the window; joined, they are the text."""
        if self._window is None:
            return [text]
        assert self._model, "start() comes first"
        pieces = split_evenly(text, self._model.tokenizer, self._window)
        if len(pieces) > 1 and not self._reported:
            self._reported = True
            print(
                f"embedder {self._config.model}: reads {self._window} tokens at once; longer texts are embedded in "
                "pieces",
                file=sys.stderr,
                flush=True,
            )
        return pieces

    def _encode(self, texts: list[str]) -> Any:
        """Unit vectors of texts that fit the window; halves the batch while memory runs out."""
        assert self._model, "start() comes first"
        while True:
            try:
                return self._model.encode(
                    texts, batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
                )
            except Exception as error:
                if not is_memory_shortage(error):
                    raise
                if self._batch_size == 1:
                    raise CallFailed(
                        f"the embedder {self._config.model} ran out of memory: {first_line(error)}"
                    ) from None
            free_memory()
            self._batch_size //= 2

    def _load(self) -> "SentenceTransformer":
        check_embedder(self._config)
        from sentence_transformers import SentenceTransformer

        config = self._config
        # Loaded on the CPU first: its weights then say how much memory of a GPU they take.
        device = "cpu" if config.device == "auto" else pick_device(config.device, "embedder.device")
        try:
            model = SentenceTransformer(
                resolve(config.model),
                device=device,
                trust_remote_code=config.trust_remote_code,
                model_kwargs=None if config.dtype == "auto" else {"dtype": config.dtype},
            )
        except UserError:
            raise
        except Exception as error:  # missing files, broken weights, code written for another transformers
            raise UserError(f"embedder.model: cannot load {config.model!r}: {first_line(error)}") from None
        if config.device == "auto":
            weights = sum(part.numel() * part.element_size() for part in model.parameters())
            model = model.to(roomiest_device(config.model, weights))
        self._window = _window_of(model)
        return model


def _window_of(model: "SentenceTransformer") -> int | None:
    """Tokens that a model reads of a text, without special tokens; None if unknown, or if texts cannot be cut."""
    from transformers import PreTrainedTokenizerBase

    tokenizer = model.tokenizer
    # Only fast tokenizers report where tokens lie in the text.
    if not model.max_seq_length or not isinstance(tokenizer, PreTrainedTokenizerBase) or not tokenizer.is_fast:
        return None
    return max(1, model.max_seq_length - tokenizer.num_special_tokens_to_add())


class OpenAIEmbedder:
    """An embedding model on an OpenAI-compatible server; finished calls are kept in the call cache."""

    def __init__(self, config: EmbedderConfig, cache: CallCache, ledger: Ledger) -> None:
        from lf_longpo.models.openai_client import make_client

        self._config = config
        self._cache = cache
        self._ledger = ledger
        self._client = make_client(config.base_url, config.api_key_env, timeout=120, max_retries=8)
        self._server = f"the embedding server {config.base_url or OPENAI_URL}"
        self._dimensions = 0  # of the first vectors that arrived
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._refusals = Refusals()

    async def start(self) -> None:
        """Embeds a word once, to find a wrong address, key or name; see `Embedder.start`."""
        if self._dimensions:
            return
        import openai

        from lf_longpo.models.openai_client import key_hint, refuse_missing_version

        try:
            await self._probe()
        except UserError as error:
            if isinstance(error.__context__, openai.NotFoundError):
                await refuse_missing_version(self._client, "embedder.base_url")
            raise
        except Refused as error:
            key = key_hint(self._config.api_key_env)
            raise UserError(f"embedder: {error}; check embedder.model, embedder.base_url and {key}") from None
        except CallFailed as error:
            raise UserError(f"embedder: {error}; start the server or fix embedder.base_url") from None

    async def _probe(self) -> None:
        try:
            vectors, _ = await self._create(["ready"], self._client.with_options(max_retries=0))
        except TryAgain as error:
            if error.unreachable:
                raise
            vectors, _ = await self._create(["ready"], self._client)  # the client retries while the server is busy
        self._read(vectors, ["ready"])

    async def embed(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.embed`."""
        size = self._config.batch_size
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        vectors = await all_settled(*(self._kept(question, index, list(batch)) for index, batch in enumerate(batches)))
        return np.concatenate(vectors)

    async def similarities(self, question: str, anchor: str, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.similarities`."""
        vectors = await self.embed(question, [anchor, *texts])
        alike: np.ndarray = vectors[1:] @ vectors[0]
        return alike

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def _kept(self, question: str, index: int, texts: list[str]) -> np.ndarray:
        key = CallKey("embed", question, index, request_hash({"model": self._config.model, "texts": texts}))
        kept = self._cache.get(key)
        if kept is not None:
            try:
                return self._read(kept["vectors"], texts)
            except CallFailed:  # kept by an earlier version, which did not check
                pass
        most = cost_of(self._config.price, _most_tokens(texts), 0)
        async with self._slots, self._ledger.set_aside(most):
            began = time.monotonic()
            with self._refusals.watch(len(texts), question):  # the number of texts, because servers limit it
                sent, tokens = await self._create(texts, self._client)
            vectors = self._read(sent, texts)
            cost = cost_of(self._config.price, tokens, 0)
            self._cache.put(key, {"vectors": sent, "prompt_tokens": tokens}, cost, time.monotonic() - began)
            self._ledger.add("embed", StageTotals(1, tokens, 0, cost))
        return vectors

    async def _create(self, texts: list[str], client: "AsyncOpenAI") -> tuple[list[Any], int]:
        """The vectors of texts as the server sent them, and the number of tokens."""
        from lf_longpo.models.openai_client import plain_errors, refuse_error

        body = {"model": self._config.model, "input": texts, "encoding_format": "float"}
        with plain_errors(self._config.base_url, self._config.api_key_env):
            reply: Any = await client.post("/embeddings", cast_to=object, body=body)
            refuse_error(self._config.base_url or OPENAI_URL, reply)
            ordered = sorted(reply["data"], key=lambda item: item["index"])
            vectors = [item["embedding"] for item in ordered]
            return vectors, used_tokens(reply)[0] or _most_tokens(texts)

    def _read(self, vectors: list[Any], texts: list[str]) -> np.ndarray:
        array = unit_vectors(vectors, len(texts), self._server)
        self._dimensions = self._dimensions or array.shape[1]
        if array.shape[1] != self._dimensions:
            raise CallFailed(
                f"{self._server} sent vectors of {array.shape[1]} numbers after vectors of {self._dimensions}"
            )
        return array


def _most_tokens(texts: Sequence[str]) -> int:
    """An upper bound of the tokens of texts for any tokenizer: a token is at least a byte, and a few mark the ends."""
    return sum(len(text.encode()) + _END_MARKS for text in texts)
