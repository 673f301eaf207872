"""Articles to fill contexts with: a folder of documents, a table of titles and texts, or a data set on the hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lf_longpo.errors import UserError
from lf_longpo.synthesis.documents import TEXT_TYPES, files_state, read_text, text_files
from lf_longpo.synthesis.sources import Document
from lf_longpo.tables import places_and_rows
from lf_longpo.text.chunking import chunk_sentences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# No tokenizer puts more letters than this into a token on the average.
_LETTERS_A_TOKEN = 12


def read_corpus(name: str, split: str, article_tokens: int, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Document]:
    """Streams articles, each cut behind a sentence where it is longer than `article_tokens`.

    Raises:
        UserError: the corpus is not there, is empty, or a row of it has no title and text.
    """
    found = False
    for title, text in _articles(name, split):
        found = True
        yield Document(title, beginning(text, article_tokens, tokenizer))
    if not found:
        wanted = f"no {' or '.join(TEXT_TYPES)} file" if Path(name).is_dir() else "no articles"
        raise UserError(f"corpus: {name} holds {wanted}; name a folder of texts, or one file with title and text")


def corpus_state(name: str) -> str:
    """A hash that changes when the files of a corpus do; of a hub data set, of its name."""
    path = Path(name)
    return files_state([(name, text_files(path) if path.is_dir() else [path] if path.is_file() else [])])


def beginning(text: str, tokens: int, tokenizer: "PreTrainedTokenizerBase") -> str:
    """As many whole sentences of a text as have so many tokens, or a part of the first."""
    if len(text.encode()) <= tokens:  # a token is at least one byte
        return text
    return chunk_sentences(text[: tokens * _LETTERS_A_TOKEN], tokenizer, tokens, 0)[0].rstrip()


def _articles(name: str, split: str) -> Iterator[tuple[str, str]]:
    folder = Path(name)
    if folder.is_dir():
        for path in text_files(folder):
            yield path.stem, read_text(path)
        return
    for place, row in places_and_rows(name, split):
        title, text = (row.get(field) for field in ("title", "text")) if isinstance(row, dict) else (None, None)
        if not isinstance(title, str) or not title.strip():
            raise UserError(f"{place}: the field title must be a text that is not empty; add it")
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{place}: the field text must be a text that is not empty; fill it or remove the article")
        yield title.strip(), text.strip()
