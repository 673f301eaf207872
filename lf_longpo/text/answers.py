"""Extracting the answer from a model's output and scoring it against the gold answers.

LongMab-PO (arXiv 2508.13993, section 3) uses two rewards that differ on purpose. `rollout_reward` updates the bandit:
it looks for the gold answer anywhere in the output, because a chunk that holds the fact deserves a reward even if the
model did not use the requested format. `pair_reward` selects pairs: it scores only an answer in the requested format.

A gold answer is a string or a sequence of accepted strings; the best match counts.

The published rule finds an answer by its prefix. Models that write Markdown often give no such prefix: `**Answer**: X`,
`### Answer`, `Answer：X`. The form `tolerant` also reads these if the published rule finds no answer.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

ANSWER_PREFIXES = ("answer:", "the answer is:", "final answer is:")
"""What an answer follows, in lower case and in the order of the published code."""
AnswerForm = Literal["published", "tolerant"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_EMPHASIS = re.compile(r"[*`]|__")
_HEADING = re.compile(r"^[ \t>#]*(?:(?:the|my|final|correct|short) )*answer[ \t]*$", re.MULTILINE)
_LABEL = re.compile(r"(?:answer[ \t]*|答案(?:是|为)?[ \t]*)[:：]")

Truths = str | Sequence[str]


def normalize_answer(text: str) -> str:
    """The text in lower case, without ASCII punctuation and the words a, an, the; white space collapsed (SQuAD)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def extract_answer(prediction: str, form: AnswerForm = "published") -> tuple[str, bool]:
    """Extracts the answer from a model's output.

    The prefixes of `ANSWER_PREFIXES` are tried in order. The answer is the text after the last occurrence of the first
    prefix that occurs. White space alone after the prefix is an empty answer, as in the published code.

    Args:
        prediction: a model's output.
        form: `tolerant` also reads labels in Markdown or with other colons if no prefix gives an answer.

    Returns:
        The answer in lower case and stripped, and True; or the whole text in lower case and stripped, and False, if no
        prefix occurs or nothing follows it.
    """
    text = prediction.lower()
    answer, found = _after_prefix(text)
    if not found and form == "tolerant":
        plain = _HEADING.sub("answer:", _EMPHASIS.sub("", text))
        tolerant, found = _after_prefix(_LABEL.sub("answer:", plain))
        answer = tolerant if found else answer
    return answer, found


def has_unread_answer(prediction: str) -> bool:
    """Whether only the form `tolerant` finds an answer, because its label is in Markdown."""
    return not extract_answer(prediction)[1] and extract_answer(prediction, "tolerant")[1]


def is_in_every_text(truths: Truths) -> bool:
    """Whether a gold answer normalises to an empty text (`A`, `!`); `sub_exact_match` then finds it in any text."""
    return not all(map(normalize_answer, _listed(truths)))


def _after_prefix(text: str) -> tuple[str, bool]:
    for prefix in ANSWER_PREFIXES:
        _, found, tail = text.rpartition(prefix)
        if found:
            return (tail.strip(), True) if tail else (text.strip(), False)
    return text.strip(), False


def exact_match(prediction: str, truths: Truths) -> float:
    """1.0 if the normalised prediction equals a normalised gold answer, else 0.0."""
    predicted = normalize_answer(prediction)
    return float(any(predicted == normalize_answer(truth) for truth in _listed(truths)))


def sub_exact_match(prediction: str, truths: Truths) -> float:
    """1.0 if a normalised gold answer occurs in the normalised prediction, else 0.0."""
    predicted = normalize_answer(prediction)
    return float(any(normalize_answer(truth) in predicted for truth in _listed(truths)))


def f1(prediction: str, truths: Truths) -> float:
    """Word-level F1 of the normalised texts (SQuAD, arXiv 1606.05250), in [0, 1]; the best over the gold answers."""
    predicted = normalize_answer(prediction).split()
    return max((_f1(predicted, normalize_answer(truth).split()) for truth in _listed(truths)), default=0.0)


def rollout_reward(prediction: str, truths: Truths, form: AnswerForm = "published") -> float:
    """The bandit's reward: (SubEM of the whole output + F1 of its answer) / 2, in [0, 1]; F1 is 0 without an answer."""
    answer, found = extract_answer(prediction, form)
    return (sub_exact_match(prediction, truths) + (f1(answer, truths) if found else 0.0)) / 2


def pair_reward(prediction: str, truths: Truths, form: AnswerForm = "published") -> float:
    """The reward that selects pairs: (SubEM + F1) / 2 of the extracted answer, in [0, 1]; 0 without an answer."""
    answer, found = extract_answer(prediction, form)
    return _answer_reward(answer, tuple(_listed(truths))) if found else 0.0


@lru_cache(maxsize=1024)
def _answer_reward(answer: str, truths: tuple[str, ...]) -> float:
    """Cached: many rollouts of a question give the same answer."""
    return (sub_exact_match(answer, truths) + f1(answer, truths)) / 2


def _listed(truths: Truths) -> Sequence[str]:
    return [truths] if isinstance(truths, str) else truths


def _f1(predicted: list[str], truth: list[str]) -> float:
    common = sum((Counter(predicted) & Counter(truth)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(truth)
    return 2 * precision * recall / (precision + recall)
