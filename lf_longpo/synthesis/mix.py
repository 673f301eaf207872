"""Joining questions from several places: which ones stay, and which are held out without sharing a document.

Two passes over the inputs: the first decides and keeps a signature of each context, the second writes. So contexts of
any length are never in memory together.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.config import MixConfig
from lf_longpo.data.questions import Source, question_of, refuse_repeated_ids
from lf_longpo.data.records import Question
from lf_longpo.errors import UserError
from lf_longpo.files.faults import AT_ONCE, Faults, parsed
from lf_longpo.synthesis.near_duplicates import SeenTexts
from lf_longpo.synthesis.sources import title_key
from lf_longpo.synthesis.splitting import Groups, held_out
from lf_longpo.text.chunking import count_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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


class Asked(NamedTuple):
    """A question with the row that it was read from."""

    question: Question
    row: dict[str, Any]

    @property
    def id(self) -> str:
        """The question's."""
        return self.question.id

    key = id


def read_inputs(config: MixConfig, faults: Faults = AT_ONCE) -> Iterator[tuple[str, Asked]]:
    """Streams the questions of all inputs, each after its place; `faults` takes the rows that are none.

    Raises:
        UserError: an input cannot be read at all.
    """

    def parse(row: Any, place: str) -> Asked:
        return Asked(question_of(row, place, needs_answers=False), row)

    for name in config.inputs:
        yield from parsed(Source(name, config.input_split).rows(faults), parse, faults)


def choose(config: MixConfig, tokenizer: "PreTrainedTokenizerBase") -> Choice:
    """Reads everything once and decides.

    Raises:
        UserError: rows that are no questions and ids that occur twice (all of them at once), nothing stays, or too
            little can be held out.
    """
    choice, groups, contexts = Choice(), Groups(), SeenTexts(config.near_duplicate)
    with Faults() as faults:
        for _, (question, row) in refuse_repeated_ids(read_inputs(config, faults), faults):
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
            for document in _documents(row):
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
