"""Responses that nearly repeat another one: the same text, or the same answer and almost the same words."""

import re
from collections import Counter
from dataclasses import dataclass

from lf_longpo.text.answers import extract_answer, normalize_answer

ALMOST_SAME = 0.9
"""The share of common words from which two responses with the same answer count as repeats: one word of ten differs."""

# A Chinese character counts as a word.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")


@dataclass(frozen=True, slots=True)
class Wording:
    """What is compared of a response."""

    answer: str | None
    """The normalised answer after `Answer:` or a similar mark; None without such a mark."""
    words: Counter[str]

    @classmethod
    def of(cls, text: str) -> "Wording":
        """The wording of a response."""
        answer, found = extract_answer(text, "tolerant")
        return cls(normalize_answer(answer) if found else None, Counter(_WORD.findall(text.lower())))

    def repeats(self, other: "Wording") -> bool:
        """Whether both have the same answer, and at least `ALMOST_SAME` of their words in common.

        The share is the Dice coefficient of the two bags of words: 2 * common / (words of the one + of the other). It
        ignores case, punctuation and the order of words.
        """
        if self.answer != other.answer:
            return False
        total = self.words.total() + other.words.total()
        return 2 * (self.words & other.words).total() >= ALMOST_SAME * total
