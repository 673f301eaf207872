"""How an answer is found in a model's output and scored against the gold answers.

LongMab-PO (arXiv 2508.13993, section 3) uses two rewards that differ on purpose. The one that steers the bandit looks
for the gold answer anywhere in the output, so that a chunk which let the model find the fact is rewarded even when
the form slipped. The one that picks training pairs scores only an answer given in the asked form.

A gold answer is a string or a sequence of accepted strings; against several the best match counts.

The published rule knows an answer by its prefix. Models that write Markdown often give none: `**Answer**: X`,
`### Answer`, `Answer：X`. The form `tolerant` reads these too, where the published rule finds nothing.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal

ANSWER_PREFIXES = ("answer:", "the answer is:", "final answer is:")
AnswerForm = Literal["published", "tolerant"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_EMPHASIS = re.compile(r"[*`]|__")
_HEADING = re.compile(r"^[ \t>#]*(?:(?:the|my|final|correct|short) )*answer[ \t]*$", re.MULTILINE)
_LABEL = re.compile(r"(?:answer[ \t]*|答案(?:是|为)?[ \t]*)[:：]")

Truths = str | Sequence[str]


def normalize_answer(text: str) -> str:
    """Lower-case, without ASCII punctuation and the words a, an, the; white space collapsed (SQuAD)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def extract_answer(prediction: str, form: AnswerForm = "published") -> tuple[str, bool]:
    """The answer given in `prediction`, lower-cased and stripped, and whether one was given.

    The prefixes of `ANSWER_PREFIXES` are tried in order, each at its last occurrence; all that follows it is the
    answer. Where not even white space follows the first prefix that occurs, or none occurs, the whole text comes back
    with False; white space alone is an empty answer, as in the published code.

    Args:
        prediction: a model's output.
        form: `tolerant` also reads labels in Markdown or with other colons, where there is no answer otherwise.
    """
    text = prediction.lower()
    answer, found = _after_prefix(text)
    if not found and form == "tolerant":
        plain = _HEADING.sub("answer:", _EMPHASIS.sub("", text))
        tolerant, found = _after_prefix(_LABEL.sub("answer:", plain))
        answer = tolerant if found else answer
    return answer, found


def has_unread_answer(prediction: str) -> bool:
    """Whether a label in Markdown is all that shows the answer: to the published rule there is none."""
    return not extract_answer(prediction)[1] and extract_answer(prediction, "tolerant")[1]


def is_in_every_text(truths: Truths) -> bool:
    """Whether a gold answer normalises to nothing (`A`, `!`): `sub_exact_match` then finds it in any text."""
    return not all(map(normalize_answer, _listed(truths)))


def _after_prefix(text: str) -> tuple[str, bool]:
    for prefix in ANSWER_PREFIXES:
        _, found, tail = text.rpartition(prefix)
        if found:
            return (tail.strip(), True) if tail else (text.strip(), False)
    return text.strip(), False


def exact_match(prediction: str, truths: Truths) -> float:
    """1.0 where the normalised prediction equals a normalised gold answer, else 0.0."""
    predicted = normalize_answer(prediction)
    return float(any(predicted == normalize_answer(truth) for truth in _listed(truths)))


def sub_exact_match(prediction: str, truths: Truths) -> float:
    """1.0 where a normalised gold answer occurs in the normalised prediction, else 0.0."""
    predicted = normalize_answer(prediction)
    return float(any(normalize_answer(truth) in predicted for truth in _listed(truths)))


def f1(prediction: str, truths: Truths) -> float:
    """Word-level F1 between the normalised texts (SQuAD, arXiv 1606.05250), in [0, 1]; best over the gold answers."""
    predicted = normalize_answer(prediction).split()
    return max((_f1(predicted, normalize_answer(truth).split()) for truth in _listed(truths)), default=0.0)


def rollout_reward(prediction: str, truths: Truths, form: AnswerForm = "published") -> float:
    """What the bandit learns from: (SubEM of the whole output + F1 of its answer) / 2; F1 is 0 without an answer."""
    answer, found = extract_answer(prediction, form)
    return (sub_exact_match(prediction, truths) + (f1(answer, truths) if found else 0.0)) / 2


def pair_reward(prediction: str, truths: Truths, form: AnswerForm = "published") -> float:
    """What picks chosen and rejected: (SubEM + F1) / 2 of the extracted answer; 0 without an answer."""
    answer, found = extract_answer(prediction, form)
    return (sub_exact_match(answer, truths) + f1(answer, truths)) / 2 if found else 0.0


def _listed(truths: Truths) -> Sequence[str]:
    return [truths] if isinstance(truths, str) else truths


def _f1(predicted: list[str], truth: list[str]) -> float:
    common = sum((Counter(predicted) & Counter(truth)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(truth)
    return 2 * precision * recall / (precision + recall)
