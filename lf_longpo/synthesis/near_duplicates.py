"""Finds near duplicates: long texts by MinHash signature, questions word by word."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasketch import MinHash

# Words per sequence, and permutations per signature: with 128, the estimated similarity is off by about 0.06.
_SHINGLE, _PERMUTATIONS = 5, 128
# The index is asked for pairs this much below the threshold, so that it misses almost none above it.
_SLACK = 0.2
# Sequences per batch to hash.
_SLICE = 10_000
# A Chinese character counts as a word.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")
# Questions with this share of words in common, in order, are duplicates: the bound of Self-Instruct (arXiv 2212.10560,
# section 2.2).
_SAME_QUESTION = 0.7


class SeenTexts:
    """The long texts so far, by signature.

    Args:
        threshold: share of common word sequences from which two texts are near duplicates; None: only equal texts are.
    """

    def __init__(self, threshold: float | None) -> None:
        self._threshold = threshold
        self._times: Counter[str] = Counter()
        self._exact: dict[bytes, str] = {}
        self._signatures: dict[str, MinHash] = {}
        self._near: Any = None
        if threshold is not None:
            from datasketch import MinHashLSH

            self._near = MinHashLSH(threshold=max(threshold - _SLACK, 0.1), num_perm=_PERMUTATIONS)

    def like(self, text: str, id: str) -> tuple[list[str], int]:
        """Adds a text.

        Returns:
            The ids of the first texts that are like it (its own id where there are none), and how many texts like
            the first of them there are by now.
        """
        words = _WORD.findall(text)
        key = hashlib.sha256(" ".join(words).encode()).digest()
        if (first := self._exact.get(key)) is not None:
            alike = [first]
        else:
            alike = self._nearly(words, id) or [id]
            self._exact[key] = alike[0]
        self._times[alike[0]] += 1
        return alike, self._times[alike[0]]

    def _nearly(self, words: list[str], id: str) -> list[str]:
        """Ids of near duplicates; a text without any is remembered."""
        if self._near is None:
            return []
        signature = _signature(words)
        candidates = sorted(self._near.query(signature))
        found = [known for known in candidates if self._signatures[known].jaccard(signature) >= self._threshold]
        if not found:
            self._signatures[id] = signature
            self._near.insert(id, signature)
        return found


def asked_already(question: str, earlier: Iterable[str]) -> bool:
    """Whether an earlier question has nearly the same words."""
    words = _question_words(question)
    return any(SequenceMatcher(None, words, _question_words(other)).ratio() >= _SAME_QUESTION for other in earlier)


def adds_nothing(answer: str, question: str) -> bool:
    """Whether all words of an answer are in its question."""
    return set(_question_words(answer)) <= set(_question_words(question))


def _question_words(question: str) -> list[str]:
    return re.findall(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+", question.lower())


def _signature(words: list[str]) -> "MinHash":
    from datasketch import MinHash

    signature = MinHash(num_perm=_PERMUTATIONS, seed=1)
    number = max(len(words) - _SHINGLE + 1, 1)
    for begin in range(0, number, _SLICE):
        starts = range(begin, min(begin + _SLICE, number))
        signature.update_batch([" ".join(words[start : start + _SHINGLE]).encode() for start in starts])
    return signature
