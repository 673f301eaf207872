"""Cutting a long context into chunks. No character is lost, and the context is tokenised only a few times.

All sentences are tokenised in one batch, and chunks are packed from the token counts. The published LongMab-PO code
counts a growing chunk again for every sentence, which tokenises the document dozens of times.
"""

import re
from bisect import bisect_right
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A sentence ends after English stops followed by white space, after Chinese stops, or at the end of a line. Closing
# quotes and brackets and the white space that follows belong to the sentence, so that the sentences join to the text.
_SENTENCE_END = re.compile(r"""(?:[.!?]+["'”’)\]]*(?=\s)|[。！？；…]+["'”’」』）】]*|\n)\s*""")


def split_sentences(text: str) -> list[str]:
    """The sentences of an English or Chinese text, each with the white space after it; joined, they are `text`."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    starts = [0, *ends[:-1]]
    return [text[start:end] for start, end in zip(starts, ends, strict=True) if end > start]


def chunk_sentences(text: str, tokenizer: "PreTrainedTokenizerBase", chunk_size: int, overlap: int = 2) -> list[str]:
    """Packs sentences into chunks of at most `chunk_size` tokens; a chunk begins with the end of the previous chunk.

    Args:
        text: the context. Without their overlaps, the chunks join to the context.
        tokenizer: any Hugging Face tokenizer; special tokens are not counted.
        chunk_size: the maximum number of tokens of a chunk.
        overlap: the number of sentences that a chunk shares with the next; fewer if they leave no room for a new one.

    Returns:
        The chunks in document order; an empty list for an empty text. A sentence longer than `chunk_size` is split by
        tokens.

    Raises:
        ValueError: chunk_size is below 1, overlap is negative, or one character takes more than chunk_size tokens.
    """
    return [text[start:end] for start, end in chunk_spans(text, tokenizer, chunk_size, overlap)]


def chunk_spans(
    text: str, tokenizer: "PreTrainedTokenizerBase", chunk_size: int, overlap: int = 2
) -> list[tuple[int, int]]:
    """The start and end positions of the chunks of `chunk_sentences`; same arguments and errors."""
    if chunk_size < 1 or overlap < 0:
        raise ValueError(f"chunk_size must be at least 1 and overlap at least 0, not {chunk_size} and {overlap}")
    pieces: list[str] = []
    counts: list[int] = []
    sentences = split_sentences(text)
    for sentence, count in zip(sentences, count_each(sentences, tokenizer), strict=True):
        if count <= chunk_size:
            pieces.append(sentence)
            counts.append(count)
        else:
            parts = _split_to_size(sentence, tokenizer, chunk_size)
            pieces += parts
            counts += count_each(parts, tokenizer)

    edges = [0, *accumulate(map(len, pieces))]
    packed = [(edges[start], edges[end]) for start, end in _pack(counts, chunk_size, overlap)]
    # Joined sentences can have more tokens than the sentences alone, because tokens can differ where they meet.
    fitting: list[tuple[int, int]] = []
    joined = count_each([text[start:end] for start, end in packed], tokenizer)
    for (start, end), count in zip(packed, joined, strict=True):
        inner = edges[bisect_right(edges, start) - 1 : bisect_right(edges, end)]
        fitting += [(start, end)] if count <= chunk_size else _halved(text, inner, tokenizer, chunk_size)
    return fitting


def _pack(counts: list[int], chunk_size: int, overlap: int) -> list[tuple[int, int]]:
    """Spans [start, end) of pieces, each of at most `chunk_size` tokens in sum and with at least one new piece."""
    total = [0, *accumulate(counts)]  # tokens before each piece
    spans: list[tuple[int, int]] = []
    start, fresh = 0, 0  # pieces before `fresh` are already in a chunk
    while fresh < len(counts):
        while total[fresh + 1] - total[start] > chunk_size:
            start += 1
        end = bisect_right(total, total[start] + chunk_size) - 1
        spans.append((start, end))
        start, fresh = max(end - overlap, start + 1), end
    return spans


def _halved(
    text: str, edges: list[int], tokenizer: "PreTrainedTokenizerBase", chunk_size: int
) -> list[tuple[int, int]]:
    """Splits the text between `edges` in halves at the edges until each part fits."""
    whole = edges[0], edges[-1]
    if len(edges) == 2 or count_tokens(text[slice(*whole)], tokenizer) <= chunk_size:
        return [whole]
    half = (len(edges) - 1) // 2
    return _halved(text, edges[: half + 1], tokenizer, chunk_size) + _halved(text, edges[half:], tokenizer, chunk_size)


def chunk_tokens(text: str, tokenizer: "PreTrainedTokenizerBase", chunk_size: int) -> list[str]:
    """Cuts `text` after every `chunk_size` tokens; joined, the chunks are `text`.

    A cut never falls inside a character. If several tokens make up one character, a chunk can have fewer tokens.

    Args:
        text: any text.
        tokenizer: a fast Hugging Face tokenizer (it must give the offsets of tokens).
        chunk_size: tokens per chunk; special tokens are not counted.

    Raises:
        ValueError: chunk_size is below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")
    starts = token_starts(text, tokenizer)
    cuts = sorted({0, len(text), *starts[chunk_size::chunk_size]})
    return [text[begin:end] for begin, end in pairwise(cuts)]


def split_evenly(text: str, tokenizer: "PreTrainedTokenizerBase", most: int) -> list[str]:
    """Cuts `text` into as few pieces of at most `most` tokens as possible, about equally long; joined, they are `text`.

    Arguments as for `chunk_tokens`. A piece that begins inside a word can have a few more tokens alone.
    """
    starts = token_starts(text, tokenizer)
    number = max(1, -(-len(starts) // most))
    size = max(1, -(-len(starts) // number))
    return [text[begin:end] for begin, end in pairwise(sorted({0, *starts[size::size], len(text)}))] or [text]


def token_starts(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The position of each token's first character, without special tokens; never decreasing."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return list(accumulate((start for start, _ in encoded["offset_mapping"]), max))


def count_tokens(text: str, tokenizer: "PreTrainedTokenizerBase") -> int:
    """The number of tokens of `text`, without special tokens."""
    return count_each([text], tokenizer)[0]


def count_each(texts: list[str], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The number of tokens of each text. Uses the Rust tokenizer if there is one: it counts a batch on all cores."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.truncation is None and backend.padding is None:
        return [len(encoding) for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    return [len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in texts]


def _split_to_size(text: str, tokenizer: "PreTrainedTokenizerBase", chunk_size: int) -> list[str]:
    """Splits by tokens until every part, tokenised alone, has at most `chunk_size` tokens.

    A part that begins inside a word can have more tokens alone than in the text; such a part is split again.
    """
    parts: list[str] = []
    for part in chunk_tokens(text, tokenizer, chunk_size):
        if count_tokens(part, tokenizer) <= chunk_size:
            parts.append(part)
        elif len(part) > 1:
            half = len(part) // 2
            parts += _split_to_size(part[:half], tokenizer, chunk_size)
            parts += _split_to_size(part[half:], tokenizer, chunk_size)
        else:
            raise ValueError(
                f"the character {part!r} takes more than chunk_size = {chunk_size} tokens; raise chunk_size"
            )
    return parts
