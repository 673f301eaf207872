"""Which questions of several inputs are kept, and which of them are held out without sharing a document.

The inputs are read twice: first to decide, with a signature of each context in memory, then to write. Contexts are
never in memory together.
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
from lf_longpo.synthesis.multihop_questions import title_key
from lf_longpo.synthesis.near_duplicates import SeenTexts
from lf_longpo.synthesis.splitting import held_out
from lf_longpo.text.chunking import count_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Letters that are enough to detect a context's language.
_LANGUAGE_LETTERS = 4_000


@dataclass(slots=True)
class Choice:
    """The decision about every question."""

    train: set[str] = field(default_factory=set)
    """Ids of the questions to train on."""
    held_out: set[str] = field(default_factory=set)
    """Ids of the held-out questions."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Tokens of each kept context, by the question's id."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Number of removed questions by reason."""


class QuestionRow(NamedTuple):
    """A question with the row that it was read from."""

    question: Question
    row: dict[str, Any]

    @property
    def id(self) -> str:
        """The question's id."""
        return self.question.id

    @property
    def key(self) -> str:
        """Identifies it in messages about repeated ids."""
        return self.question.id


def read_inputs(config: MixConfig, faults: Faults = AT_ONCE) -> Iterator[tuple[str, QuestionRow]]:
    """Streams the questions of all inputs, each with its place.

    Args:
        config: the inputs.
        faults: takes the rows that are not questions.

    Raises:
        UserError: an input cannot be read.
    """

    def parse(row: Any, place: str) -> QuestionRow:
        return QuestionRow(question_of(row, place, needs_answers=False), row)

    for name in config.inputs:
        yield from parsed(Source(name, config.input_split).rows(faults), parse, faults)


def choose(config: MixConfig, tokenizer: "PreTrainedTokenizerBase") -> Choice:
    """Reads all inputs once and decides about every question.

    Raises:
        UserError: rows are not questions or ids are repeated (names all of them), no question is left, or too few can
            be held out.
    """
    choice, contexts = Choice(), SeenTexts(config.near_duplicate)
    shared: dict[str, list[str]] = {}
    with Faults() as faults:
        for _, (question, row) in refuse_repeated_ids(read_inputs(config, faults), faults):
            tokens = count_tokens(question.context, tokenizer)
            if tokens < config.min_tokens or (config.max_tokens is not None and tokens > config.max_tokens):
                choice.dropped["length"] += 1
                continue
            if config.languages and _language(question.context) not in config.languages:
                choice.dropped["language"] += 1
                continue
            alike, times = contexts.like(question.context, question.id)
            if times > config.questions_per_context:
                choice.dropped["duplicate context"] += 1
                continue
            shared[question.id] = [f"context {id}" for id in alike] + [f"document {key}" for key in _documents(row)]
            choice.tokens[question.id] = tokens
    if not choice.tokens:
        removed = ", ".join(f"{number} removed for {why}" for why, number in choice.dropped.items())
        raise UserError(
            f"inputs: no question is left ({removed or 'the inputs have none'}); change the filters or inputs"
        )
    if config.held_out:
        choice.held_out = held_out(shared, config.held_out_questions, config.seed)
    choice.train = choice.tokens.keys() - choice.held_out
    return choice


def _documents(row: dict[str, Any]) -> list[str]:
    """Keys of the documents that support a row's answer; of all its documents where the row does not say which do."""
    documents, supporting = (row.get(name) for name in ("documents", "supporting"))
    titles = documents if isinstance(documents, list) else []
    keys = [title_key(title) if isinstance(title, str) else "" for title in titles]
    numbers = supporting if isinstance(supporting, list) else []
    needed = [keys[number - 1] for number in numbers if isinstance(number, int) and 0 < number <= len(keys)]
    return [key for key in needed or keys if key]


def _language(text: str) -> str:
    from py3langid import classify

    return str(classify(text[:_LANGUAGE_LETTERS])[0])
