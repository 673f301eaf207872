"""`longpo synthesize`: reads, makes questions, writes them with a data card."""

import json
import random
from collections.abc import Iterable, Iterator
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.errors import UserError
from lf_longpo.journal import check_folder, write_whole
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.questions import question_of
from lf_longpo.synthesis.card import Card
from lf_longpo.synthesis.corpus import corpus_state, read_corpus
from lf_longpo.synthesis.mix import Choice, choose, read_inputs
from lf_longpo.synthesis.multihop import ContextMaker
from lf_longpo.synthesis.needle import needle_question
from lf_longpo.synthesis.passages import PassageStore
from lf_longpo.synthesis.settings import MixConfig, MultiHopConfig, NeedleConfig
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
        _write(config.output, rows, card)
    finally:
        store.close()
    return card


def make_needles(config: NeedleConfig) -> Card:
    """Makes questions about facts that are hidden in long documents, and writes them.

    Raises:
        UserError: the settings cannot work.
    """
    check_folder(config.output.parent, "output")
    tokenizer = load_tokenizer(config.tokenizer, "tokenizer", False)
    kinds = list(product(config.hops, config.depths))
    draw = random.Random(f"{config.seed}/lengths")

    def row(number: int) -> dict[str, Any]:
        hops, depth = kinds[number % len(kinds)]
        tokens = draw.randint(config.min_tokens, config.max_tokens)
        id = f"needle-{number:04d}-{hops}hop"
        return needle_question(id, hops, depth, tokens, tokenizer, config.seed)

    card = Card("needle", config, config.tokenizer)
    _write(config.output, (row(number) for number in range(config.questions)), card)
    return card


def mix(config: MixConfig) -> tuple[Choice, list[Card]]:
    """Joins, filters and splits questions, and writes them.

    Raises:
        UserError: an input or the settings cannot work, or nothing stays; nothing was written.
    """
    targets = [path for path in (config.output, config.held_out) if path]
    for path in targets:
        check_folder(path.parent, "output")
        if str(path) in config.inputs:
            raise UserError(f"output: {path} is one of the inputs; name another file")
    choice = choose(config, load_tokenizer(config.tokenizer, "tokenizer", False))
    cards = []
    for path, ids in zip(targets, (choice.train, choice.held_out), strict=False):
        card = Card("mix", config, config.tokenizer)
        _write(path, _chosen(config, choice, ids), card)
        cards.append(card)
    return choice, cards


def _chosen(config: MixConfig, choice: Choice, ids: set[str]) -> Iterator[dict[str, Any]]:
    for place, row in read_inputs(config):
        id = question_of(row, place, needs_answers=False).id
        if id in ids:
            known = {name: row.get(name) or "unknown" for name in ("source", "licence")}
            yield row | known | {"tokens": choice.tokens[id]}


def _write(output: Path, rows: Iterable[dict[str, Any]], card: Card) -> None:
    """Writes questions, and the card beside them when they are there."""
    write_whole(output, (json.dumps(card.note(row), ensure_ascii=False) + "\n" for row in rows))
    write_whole(output.with_suffix(".card.md"), [card.text()])


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
