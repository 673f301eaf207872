"""Which of the two languages that prompts are written in a text is in."""

from typing import Literal

Language = Literal["en", "zh"]

# LongReward (arXiv 2410.21252) weighs one Chinese character like four Latin letters, about a word.
_LETTERS_A_CHARACTER = 4


def detect_language(text: str) -> Language:
    """`en` where Latin letters outnumber Chinese characters by more than four to one, else `zh`.

    The published code counts the six ASCII marks between `Z` and `a` as letters; so does this.
    """
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in text)
    letters = sum("A" <= character <= "z" for character in text)
    return "en" if letters > _LETTERS_A_CHARACTER * chinese else "zh"
