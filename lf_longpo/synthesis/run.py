"""`longpo synthesize`: reads, makes questions, writes them with a data card."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from lf_longpo.errors import UserError
from lf_longpo.journal import check_folder, write_whole
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.synthesis.card import Card
from lf_longpo.synthesis.corpus import corpus_state, read_corpus
from lf_longpo.synthesis.multihop import ContextMaker
from lf_longpo.synthesis.passages import PassageStore
from lf_longpo.synthesis.settings import MultiHopConfig
from lf_longpo.synthesis.sources import Document, MultiHop, read_multihop
from lf_longpo.tables import places_and_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def make_multihop(config: MultiHopConfig) -> Card:
    """Makes multi-hop questions over long contexts and writes them.

    Raises:
        UserError: input, corpus or settings cannot work; no question was written.
    """
    check_folder(config.output.parent, "output")
    questions = list(islice(_questions(config), config.limit))
    if not questions:
        raise UserError(f"{config.input} holds no question that can be answered")
    _refuse_repeated_ids(questions, config.input)
    tokenizer = load_tokenizer(config.tokenizer, "tokenizer", False)
    store = _store(config, questions, tokenizer)
    card = Card("multihop", config, config.tokenizer)
    try:
        maker = ContextMaker(
            config.min_tokens, config.max_tokens, store, config.corpus is not None, tokenizer, config.seed
        )
        rounds = (divmod(number, len(questions)) for number in range(config.questions or len(questions)))
        rows = (maker.row(questions[place], copy) for copy, place in rounds)
        write_whole(config.output, (json.dumps(card.note(row), ensure_ascii=False) + "\n" for row in rows))
    finally:
        store.close()
    write_whole(config.output.with_suffix(".card.md"), [card.text()])
    return card


def _questions(config: MultiHopConfig) -> Iterator[MultiHop]:
    return read_multihop(places_and_rows(config.input, config.input_split))


def _refuse_repeated_ids(questions: Iterable[MultiHop], name: str) -> None:
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise UserError(f"{name}: id {question.id!r} stands twice; make ids unique")
        seen.add(question.id)


def _store(config: MultiHopConfig, questions: list[MultiHop], tokenizer: "PreTrainedTokenizerBase") -> PassageStore:
    """What distractors are drawn from: the corpus, or all paragraphs of the input."""
    path = config.index or config.output.with_suffix(".index.sqlite")
    state = corpus_state(config.corpus or config.input)
    contents = {
        "corpus": [*state, config.corpus_split if config.corpus else config.input_split],
        "tokenizer": config.tokenizer,
        "article_tokens": config.article_tokens if config.corpus else None,
        "limit": None if config.corpus else config.limit,
    }
    store = PassageStore(path, contents)
    if not store.complete:
        paragraphs: Iterator[Document] = (
            document for question in questions for document in (*question.supporting, *question.distracting)
        )
        if config.corpus:
            paragraphs = read_corpus(config.corpus, config.corpus_split, config.article_tokens, tokenizer)
        store.fill(paragraphs, tokenizer)
    return store
