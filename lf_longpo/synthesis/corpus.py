"""Articles that fill contexts: from a folder of documents, a table of titles and texts, or a data set on the hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.errors import UserError
from lf_longpo.files.faults import Faults, parsed
from lf_longpo.files.tables import places_and_rows
from lf_longpo.synthesis.documents import TEXT_TYPES, files_state, read_text, text_files
from lf_longpo.synthesis.multihop_questions import Document
from lf_longpo.text.chunking import chunk_sentences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# No tokenizer has more letters per token than this on average.
_LETTERS_A_TOKEN = 12


def read_corpus(
    name: str, split: str, article_tokens: int, tokenizer: "PreTrainedTokenizerBase", passed_over: Faults
) -> Iterator[Document]:
    """Streams articles; an article of more than `article_tokens` is cut after a sentence.

    Args:
        name: a folder of documents, a file, or a hub data set.
        split: the split of a hub data set.
        article_tokens: the most tokens of an article.
        tokenizer: counts them.
        passed_over: takes documents without a text, and rows without title and text.

    Raises:
        UserError: the corpus is missing, has lines that cannot be read, or has no article.
    """
    found = False
    for _, article in _articles(name, split, passed_over):
        found = True
        yield Document(article.title, beginning(article.text, article_tokens, tokenizer))
    if not found:
        if passed_over:
            raise UserError(f"corpus: {passed_over.refusal()}")
        wanted = f"no {' or '.join(TEXT_TYPES)} file" if Path(name).is_dir() else "no articles"
        raise UserError(f"corpus: {name} holds {wanted}; name a folder of texts, or one file with title and text")


def corpus_state(name: str) -> str:
    """A hash of a corpus that changes when one of its files does; of a hub data set, the hash of its name."""
    path = Path(name)
    return files_state([(name, text_files(path) if path.is_dir() else [path] if path.is_file() else [])])


def beginning(text: str, tokens: int, tokenizer: "PreTrainedTokenizerBase") -> str:
    """The first whole sentences of a text that fit into `tokens`, or a part of the first sentence."""
    if len(text.encode()) <= tokens:  # a token is at least one byte
        return text
    return chunk_sentences(text[: tokens * _LETTERS_A_TOKEN], tokenizer, tokens, 0)[0].rstrip()


def _articles(name: str, split: str, passed_over: Faults) -> Iterator[tuple[str, Document]]:
    """Articles, each with its place."""
    folder = Path(name)
    if folder.is_dir():
        paths = ((str(path), path) for path in text_files(folder))
        yield from parsed(paths, lambda path, _: Document(path.stem, read_text(path)), passed_over)
        return
    with Faults() as faults:
        yield from parsed(places_and_rows(name, split, faults), _article, passed_over)


def _article(row: Any, place: str) -> Document:
    known: dict[str, Any] = row if isinstance(row, dict) else {}
    for field in ("title", "text"):
        text = known.get(field)
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{place}: the field {field} must be a text that is not empty; fill it or remove the article"
            )
    return Document(known["title"].strip(), known["text"].strip())
