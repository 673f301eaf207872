"""LongBench's own metrics (arXiv 2308.14508, table 1): word F1 and ROUGE-L, for English and Chinese."""

import re
import string
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

from lf_longpo.files.cache_folder import cache_folder
from lf_longpo.text.answers import f1

if TYPE_CHECKING:
    from jieba import Tokenizer

_DICTIONARY_LOCK = Lock()
# The ROUGE library finds the longest common subsequence by recursion, with a call per word.
_RECURSION_LIMIT = 50_000
_CHINESE_MARKS = re.compile(rf"[\s{re.escape(string.punctuation)}\u2010-\u2027\u3000-\u303f\uff01-\uff0f\uff1a-\uff65]")


def qa_f1(prediction: str, reference: str) -> float:
    """F1 of the normalised words, in [0, 1]."""
    return f1(prediction, reference)


def qa_f1_zh(prediction: str, reference: str) -> float:
    """F1 of the words that jieba finds, without white space and punctuation, in [0, 1]."""
    predicted, wanted = (
        [word for word in (_CHINESE_MARKS.sub("", word.lower()) for word in _words(text)) if word]
        for text in (prediction, reference)
    )
    common = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * common / (len(predicted) + len(wanted)) if common else 0.0


def rouge_l(prediction: str, reference: str) -> float:
    """F score of ROUGE-L over words separated by white space, in [0, 1]; 0 if a text has no words."""
    from rouge import Rouge

    sys.setrecursionlimit(max(sys.getrecursionlimit(), _RECURSION_LIMIT))
    try:
        return float(Rouge(metrics=["rouge-l"]).get_scores(prediction, reference)[0]["rouge-l"]["f"])
    except ValueError:  # nothing but punctuation
        return 0.0


def rouge_l_zh(prediction: str, reference: str) -> float:
    """`rouge_l` over the words that jieba finds."""
    return rouge_l(" ".join(_words(prediction)), " ".join(_words(reference)))


def best(metric: Callable[[str, str], float], prediction: str, references: Iterable[str]) -> float:
    """The highest value of the metric over the references."""
    return max(metric(prediction, reference) for reference in references)


def _words(text: str) -> list[str]:
    with _DICTIONARY_LOCK:  # or every thread reads the dictionary
        segmenter = _segmenter()
    return list(segmenter.lcut(text))


@cache
def _segmenter() -> "Tokenizer":
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    segmenter = jieba.Tokenizer()
    # By default jieba keeps its dictionary in a folder that every user can write to, and reads it back unchecked.
    segmenter.tmp_dir = str(cache_folder())
    return segmenter
