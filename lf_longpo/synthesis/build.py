"""`longpo synthesize` multihop, needle and mix: reads the input, makes the questions, writes them with a data card."""

import random
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from lf_longpo.config import MixConfig, MultiHopConfig, NeedleConfig
from lf_longpo.data.questions import refuse_repeated_ids
from lf_longpo.engine.progress import counted
from lf_longpo.errors import UserError
from lf_longpo.files.faults import Faults
from lf_longpo.files.journal import check_folder
from lf_longpo.files.tables import places_and_rows
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.synthesis.corpus import corpus_state, read_corpus
from lf_longpo.synthesis.data_card import Card
from lf_longpo.synthesis.mix import Choice, choose, read_inputs
from lf_longpo.synthesis.multihop import ContextMaker, TooLong
from lf_longpo.synthesis.multihop_questions import Document, MultiHop, read_multihop, title_key
from lf_longpo.synthesis.needle import needle_question
from lf_longpo.synthesis.passages import PassageStore
from lf_longpo.synthesis.splitting import Pools, held_out

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def make_multihop(config: MultiHopConfig) -> list[Card]:
    """Makes multi-hop questions over long contexts and writes them.

    Returns:
        The data card of each file.

    Raises:
        UserError: the input, the corpus or a setting cannot be used; no question was written.
    """
    index = config.index or config.output.with_suffix(".index.sqlite")
    _check_targets([config.output, config.held_out, index], [config.input, config.corpus])
    passed_over = Faults("questions")
    with Faults() as faults:
        read = read_multihop(places_and_rows(config.input, config.input_split, faults), passed_over)
        questions = [question for _, question in islice(refuse_repeated_ids(read, faults), config.limit)]
    if not questions:
        raise UserError(
            passed_over.refusal()
            if passed_over
            else f"{config.input} holds no question with an answer; name another file"
        )
    parts = _parts(config, questions)
    tokenizer = load_tokenizer(config.tokenizer, "tokenizer", False)
    cards = []
    with _index_locked(index):
        store = _store(config, index, questions, tokenizer)
        try:
            for part in parts:
                lengths = config.min_tokens, config.max_tokens
                with_articles = config.corpus is not None
                maker = ContextMaker(*lengths, store, with_articles, tokenizer, config.seed, part.belongs)
                rows = (row | _licences(config, row) for row in _rows(part, maker, passed_over))
                card = Card("multihop", config, config.tokenizer)
                card.write(part.output, counted(rows, "questions made"))
                card.remarks += _remarks(maker)
                cards.append(card)
        finally:
            store.close()
    if passed_over:
        cards[-1].remarks.append(passed_over.warning())
    return cards


@dataclass(frozen=True, slots=True)
class _Part:
    """The questions of one output file."""

    output: Path
    questions: list[MultiHop]
    number: int
    """How many questions to make; more than there are gives each several contexts."""
    belongs: Callable[[str], bool]
    """Whether their contexts may contain a document, by the key of its title."""


def _parts(config: MultiHopConfig, questions: list[MultiHop]) -> list[_Part]:
    if config.held_out is None:
        return [_Part(config.output, questions, config.questions or len(questions), lambda key: True)]
    needed = {
        question.id: {title_key(document.title) or document.text for document in question.supporting}
        for question in questions
    }
    away = held_out(needed, config.held_out_questions, config.seed)
    train_keys, away_keys = (
        {key for id, keys in needed.items() if (id in away) is is_away for key in keys} for is_away in (False, True)
    )
    pools = Pools(train_keys, away_keys, len(away) / len(questions), config.seed)
    train = [question for question in questions if question.id not in away]
    return [
        _Part(config.output, train, config.questions or len(train), lambda key: not pools.is_away(key)),
        _Part(config.held_out, [question for question in questions if question.id in away], len(away), pools.is_away),
    ]


def _rows(part: _Part, maker: ContextMaker, passed_over: Faults) -> Iterator[dict[str, Any]]:
    """The questions of a part over long contexts; each has its first context before any has its second.

    Args:
        part: the questions.
        maker: makes the contexts.
        passed_over: takes the questions whose documents are too long.

    Raises:
        UserError: no question is left, or the corpus is too small.
    """
    too_long = 0
    for number in range(part.number):
        copy, i = divmod(number, len(part.questions))
        try:
            yield maker.row(part.questions[i], copy)
        except TooLong as fault:
            too_long += 1
            if copy == 0:
                passed_over.add(fault)
    if too_long == part.number:
        raise UserError(passed_over.refusal())


def _remarks(maker: ContextMaker) -> list[str]:
    if not maker.untitled:
        return []
    return [
        f"{len(maker.untitled)} titles of supporting documents are not in the corpus, such as {min(maker.untitled)!r}; "
        "the contexts have these paragraphs without their article"
    ]


def make_needles(config: NeedleConfig) -> list[Card]:
    """Makes questions about facts that are hidden in long documents, and writes them.

    Raises:
        UserError: a setting cannot be used.
    """
    _check_targets([config.output], [])
    tokenizer = load_tokenizer(config.tokenizer, "tokenizer", False)
    kinds = list(product(config.hops, config.depths))
    draw = random.Random(f"{config.seed}/lengths")

    def row(number: int) -> dict[str, Any]:
        hops, depth = kinds[number % len(kinds)]
        tokens = draw.randint(config.min_tokens, config.max_tokens)
        # Questions with another length or seed are different questions.
        id = f"needle-{config.seed}-{tokens}-{number:04d}-{hops}hop"
        return needle_question(id, hops, depth, tokens, tokenizer, config.seed)

    card = Card("needle", config, config.tokenizer)
    card.write(config.output, counted((row(number) for number in range(config.questions)), "questions made"))
    return [card]


def mix(config: MixConfig) -> tuple[Choice, list[Card]]:
    """Joins, filters and splits questions, and writes them.

    Raises:
        UserError: an input or a setting cannot be used, or no question is left; nothing was written.
    """
    targets = [path for path in (config.output, config.held_out) if path]
    _check_targets(targets, config.inputs)
    choice = choose(config, load_tokenizer(config.tokenizer, "tokenizer", False))
    cards = []
    for path, ids in zip(targets, (choice.train, choice.held_out), strict=False):
        card = Card("mix", config, config.tokenizer)
        card.write(path, _chosen(config, choice, ids))
        cards.append(card)
    return choice, cards


def _store(
    config: MultiHopConfig, index: Path, questions: list[MultiHop], tokenizer: "PreTrainedTokenizerBase"
) -> PassageStore:
    """The passages that distractors are drawn from: the corpus, or all paragraphs of the input."""
    split = config.corpus_split if config.corpus else config.input_split
    limit = config.article_tokens if config.corpus else config.limit
    store = PassageStore(index, f"{corpus_state(config.corpus or config.input)} {split} {config.tokenizer} {limit}")
    if not store.complete:
        passed_over = Faults("articles")
        paragraphs: Iterator[Document] = (
            document for question in questions for document in (*question.supporting, *question.distracting)
        )
        if config.corpus:
            print(f"indexing {config.corpus} -> {index}", file=sys.stderr, flush=True)
            articles = read_corpus(config.corpus, config.corpus_split, config.article_tokens, tokenizer, passed_over)
            paragraphs = counted(articles, "articles read")
        try:
            store.fill(paragraphs, tokenizer)
            if passed_over:
                print(passed_over.warning(), file=sys.stderr, flush=True)
        except BaseException:
            store.close()
            raise
    return store


@contextmanager
def _index_locked(index: Path) -> Iterator[None]:
    """Locks an index against other processes.

    Raises:
        UserError: another process has locked it.
    """
    index.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{index}.lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"index: another run uses {index}; wait until it ends, or set index to another file") from None


def _licences(config: MultiHopConfig, row: dict[str, Any]) -> dict[str, Any]:
    """The corpus and its licence, for a row that has articles from it."""
    if config.corpus is None:
        return {}
    return {"corpus": config.corpus, "licence": f"{row['licence']}; corpus: {config.corpus_licence}"}


def _check_targets(targets: Sequence[Path | None], sources: Sequence[str | None]) -> None:
    """Checks before any work that no file would be written over another.

    Raises:
        UserError: two targets, or a target and a source, are the same file; or a folder cannot be written.
    """
    seen = {Path(source).resolve(): source for source in sources if source}
    for target in filter(None, targets):
        check_folder(target.parent, "output")
        if target.is_dir():
            raise UserError(f"output: {target} is a folder; name a file")
        if target.resolve() in seen:
            raise UserError(f"output: {target} would overwrite {seen[target.resolve()]}; name another file")
        seen[target.resolve()] = str(target)


def _chosen(config: MixConfig, choice: Choice, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    for _, (question, row) in read_inputs(config):
        if question.id in ids:
            known = {name: row.get(name) or "unknown" for name in ("source", "licence")}
            yield row | known | {"tokens": choice.tokens[question.id]}
