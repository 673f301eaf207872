"""Detecting the language of a text: prompts exist in English and Chinese."""

from typing import Literal

Language = Literal["en", "zh"]

# In LongReward (arXiv 2410.21252), one Chinese character counts as much as four Latin letters, about a word.
_LETTERS_PER_CHARACTER = 4


def detect_language(text: str) -> Language:
    """`en` if there are more than four Latin letters per Chinese character, else `zh`.

    As in the published code, the six ASCII marks between `Z` and `a` count as letters.
    """
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in text)
    letters = sum("A" <= character <= "z" for character in text)
    return "en" if letters > _LETTERS_PER_CHARACTER * chinese else "zh"
