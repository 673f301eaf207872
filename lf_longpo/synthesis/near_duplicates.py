"""Finding texts that say nearly the same: long ones by signature, short ones word by word."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasketch import MinHash

# Words of a sequence, and permutations of a signature: two signatures tell what texts have in common to about 0.06.
_SHINGLE, _PERMUTATIONS = 5, 128
# What is looked at closer: the index finds nearly all pairs that have so much more in common than this.
_SLACK = 0.2
# Sequences that are hashed at once.
_SLICE = 10_000
# A Chinese character is as good as a word.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")
# Questions that have this share of their words in common, in order, count as one: the bound of Self-Instruct (arXiv
# 2212.10560, section 2.2).
_SAME_QUESTION = 0.7


class SeenTexts:
    """Long texts so far, by signature.

    Args:
        threshold: the share of common word sequences from which two texts count as one; None for equal ones alone.
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
        """The ids of the first texts like this one, and how many there are with this one."""
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
        """Ids of near duplicates; where there are none, this one is remembered."""
        if self._near is None:
            return []
        signature = _signature(words)
        candidates = sorted(self._near.query(signature))
        found = [one for one in candidates if self._signatures[one].jaccard(signature) >= self._threshold]
        if not found:
            self._signatures[id] = signature
            self._near.insert(id, signature)
        return found


def asked_already(question: str, others: Iterable[str]) -> bool:
    """Whether one of the other questions is this one in other words or marks."""
    words = _question_words(question)
    return any(SequenceMatcher(None, words, _question_words(other)).ratio() >= _SAME_QUESTION for other in others)


def adds_nothing(answer: str, question: str) -> bool:
    """Whether an answer has no word that is not in its question."""
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
