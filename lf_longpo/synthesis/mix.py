"""Joining questions from several places: which ones stay, and which are held out without sharing a document.

Two passes over the inputs: the first decides and keeps a signature of each context, the second writes. So contexts of
any length are never in memory together.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lf_longpo.errors import UserError
from lf_longpo.questions import Source, question_of, refuse_repeated_ids
from lf_longpo.synthesis.settings import MixConfig
from lf_longpo.synthesis.sources import title_key
from lf_longpo.synthesis.splitting import Groups, held_out
from lf_longpo.text.chunking import count_tokens

if TYPE_CHECKING:
    from datasketch import MinHash
    from transformers import PreTrainedTokenizerBase

# Words of a sequence, and permutations of a signature: two signatures tell what contexts have in common to about 0.06.
_SHINGLE, _PERMUTATIONS = 5, 128
# What is looked at closer: the index finds nearly all pairs that have so much more in common than this.
_SLACK = 0.2
# Sequences that are hashed at once.
_SLICE = 10_000
# A Chinese character is as good as a word.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")
# Letters that tell a context's language.
_LANGUAGE_LETTERS = 4_000


@dataclass(slots=True)
class Choice:
    """What becomes of the questions."""

    train: set[str] = field(default_factory=set)
    """Ids."""
    held_out: set[str] = field(default_factory=set)
    tokens: dict[str, int] = field(default_factory=dict)
    """Of each context that stays, by id."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Questions by what they were left out for."""


def read_inputs(config: MixConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Streams the rows of all inputs, each behind its place.

    Raises:
        UserError: an input cannot be read.
    """
    for name in config.inputs:
        yield from Source(name, config.input_split).rows()


def choose(config: MixConfig, tokenizer: "PreTrainedTokenizerBase") -> Choice:
    """Reads everything once and decides.

    Raises:
        UserError: a row that is no question, an id that stands twice, nothing stays, or too little can be held out.
    """
    choice, groups, contexts = Choice(), Groups(), _Contexts(config.near_duplicate)
    placed = ((place, question_of(row, place, needs_answers=False), row) for place, row in read_inputs(config))
    rows: dict[str, dict[str, Any]] = {}

    def questions() -> Iterator[tuple[str, Any]]:
        for place, question, row in placed:
            rows.clear()
            rows[question.id] = row
            yield place, question

    for question in refuse_repeated_ids(questions()):
        tokens = count_tokens(question.context, tokenizer)
        if tokens < config.min_tokens or (config.max_tokens is not None and tokens > config.max_tokens):
            choice.dropped["length"] += 1
            continue
        if config.languages and _language(question.context) not in config.languages:
            choice.dropped["language"] += 1
            continue
        alike, asked = contexts.like(question.context, question.id)
        if asked > config.questions_per_context:
            choice.dropped["duplicate context"] += 1
            continue
        for one in alike:
            groups.join(question.id, f"context {one}")
        for document in _documents(rows[question.id]):
            groups.join(question.id, f"document {document}")
        choice.tokens[question.id] = tokens
    if not choice.tokens:
        left_out = ", ".join(f"{number} left out for {why}" for why, number in choice.dropped.items())
        raise UserError(f"no question stays: {left_out or 'the inputs hold none'}")
    if config.held_out:
        choice.held_out = held_out(groups, list(choice.tokens), config.held_out_questions, config.seed)
    choice.train = choice.tokens.keys() - choice.held_out
    return choice


def _documents(row: dict[str, Any]) -> list[str]:
    """The documents that a row's answer comes from, or all of its, or none where it names none."""
    documents, supporting = (row.get(name) for name in ("documents", "supporting"))
    keys = [title_key(one) if isinstance(one, str) else "" for one in documents] if isinstance(documents, list) else []
    numbers = supporting if isinstance(supporting, list) else []
    told = [keys[number - 1] for number in numbers if isinstance(number, int) and 0 < number <= len(keys)]
    return [key for key in told or keys if key]


def _language(text: str) -> str:
    from py3langid import classify

    return classify(text[:_LANGUAGE_LETTERS])[0]


class _Contexts:
    """Contexts so far, by signature.

    Args:
        threshold: the share of common word sequences from which two contexts count as one; None for equal ones alone.
    """

    def __init__(self, threshold: float | None) -> None:
        self._threshold = threshold
        self._asked: Counter[str] = Counter()
        self._exact: dict[bytes, str] = {}
        self._signatures: dict[str, MinHash] = {}
        self._near: Any = None
        if threshold is not None:
            from datasketch import MinHashLSH

            self._near = MinHashLSH(threshold=max(threshold - _SLACK, 0.1), num_perm=_PERMUTATIONS)

    def like(self, context: str, id: str) -> tuple[list[str], int]:
        """The ids of the first questions over contexts like this one, and how many there are over it with this one."""
        words = _WORD.findall(context)
        key = hashlib.sha256(" ".join(words).encode()).digest()
        if (first := self._exact.get(key)) is not None:
            alike = [first]
        else:
            alike = self._nearly(words, id) or [id]
            self._exact[key] = alike[0]
        self._asked[alike[0]] += 1
        return alike, self._asked[alike[0]]

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


def _signature(words: list[str]) -> "MinHash":
    from datasketch import MinHash

    signature = MinHash(num_perm=_PERMUTATIONS, seed=1)
    number = max(len(words) - _SHINGLE + 1, 1)
    for begin in range(0, number, _SLICE):
        starts = range(begin, min(begin + _SLICE, number))
        signature.update_batch([" ".join(words[start : start + _SHINGLE]).encode() for start in starts])
    return signature
