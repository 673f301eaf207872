"""The passages of a context that a statement is checked against.

A context is cut and embedded once for all responses and statements (the published code embeds it again for every
response).
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lf_longpo.aio import Once
from lf_longpo.models.embedders import Embedder
from lf_longpo.text.chunking import chunk_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Passages:
    """A context in passages, embedded: about a megabyte for 64k tokens."""

    texts: list[str]
    vectors: np.ndarray  # float32, (passages, dimensions), unit length


class PassageFinder:
    """Finds the passages that are most similar to a statement.

    Args:
        embedder: compares statements and passages.
        tokenizer: counts the tokens of passages.
        passage_tokens: tokens per passage.
        top_k: passages per statement.
        remembered: how many contexts stay in memory with their passages.
    """

    def __init__(
        self,
        embedder: Embedder,
        tokenizer: "PreTrainedTokenizerBase",
        passage_tokens: int,
        top_k: int,
        remembered: int,
    ) -> None:
        self._embedder = embedder
        self._tokenizer = tokenizer
        self._passage_tokens = passage_tokens
        self._top_k = top_k
        self._contexts: Once[Passages] = Once(remembered)

    async def prepare(self, context: str) -> Passages:
        """Cuts and embeds a context, once.

        Raises:
            CallFailed: the embedder lost a call.
        """
        name = hashlib.sha256(context.encode()).hexdigest()[:16]

        async def embed() -> Passages:
            cut = await asyncio.to_thread(chunk_tokens, context, self._tokenizer, self._passage_tokens)
            texts = [text for text in cut if text.strip()]
            return Passages(texts, await self._embedder.embed(name, texts))

        return await self._contexts.get(name, embed)

    async def find(self, id: str, passages: Passages, statements: Sequence[str]) -> list[list[tuple[int, str]]]:
        """For each statement its `top_k` most similar passages, in document order, each with its number from 0.

        Args:
            id: of the question; names the cached calls.
            passages: the context's.
            statements: at least one.

        Raises:
            CallFailed: the embedder lost a call.
        """
        vectors = await self._embedder.embed(id, list(statements))
        similar = vectors @ passages.vectors.T
        best = np.argsort(-similar, axis=1, kind="stable")[:, : self._top_k]
        return [[(int(i), passages.texts[i]) for i in sorted(row)] for row in best]
