"""Reads published multi-hop questions, each with paragraphs that support its answer and paragraphs that distract.

The formats are MuSiQue (arXiv 2108.00573), HotpotQA (arXiv 1809.09600) and 2WikiMultiHopQA (arXiv 2011.01060), as
published and as on the hub.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.files.faults import Faults, parsed
from lf_longpo.files.tables import PlacedRows

_LICENCES = {"musique": "CC BY 4.0", "hotpotqa": "CC BY-SA 4.0", "2wikimultihopqa": "Apache-2.0"}
_SPACE = re.compile(r"[\s_]+")


@dataclass(frozen=True, slots=True)
class Document:
    """A titled text."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class MultiHop:
    """A question over several documents."""

    id: str
    question: str
    answers: tuple[str, ...]
    supporting: tuple[Document, ...]
    distracting: tuple[Document, ...]
    source: str
    licence: str
    place: str
    """File and line, for errors."""

    @property
    def key(self) -> str:
        """Identifies it among the questions of a file."""
        return self.id


def title_key(title: str) -> str:
    """A key that is the same for all spellings of a title: case, underscores, HTML entities and Unicode form."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", unescape(title))).strip().casefold()


def read_multihop(rows: PlacedRows, passed_over: Faults) -> Iterator[tuple[str, MultiHop]]:
    """Streams questions, each with its place. MuSiQue's unanswerable questions are skipped.

    Args:
        rows: the rows, each with its place.
        passed_over: takes the rows in no known format, without an answer, or without a supporting paragraph.
    """
    return parsed(rows, _multihop, passed_over)


def _multihop(row: Any, place: str) -> MultiHop | None:
    if not isinstance(row, dict):
        raise UserError(f"{place}: the row must be an object; name a file of MuSiQue, HotpotQA or 2WikiMultiHopQA")
    if row.get("answerable") is False:
        return None
    if "paragraphs" in row:
        supporting, distracting = _musique(row, place)
        source = "musique"
    elif "context" in row and "supporting_facts" in row:
        supporting, distracting = _hotpot(row, place)
        source = "2wikimultihopqa" if "evidences" in row else "hotpotqa"
    else:
        raise UserError(
            f"{place}: the row has neither the field paragraphs (MuSiQue) nor context and supporting_facts (HotpotQA, "
            f"2WikiMultiHopQA); it has {_names(row)}; name a file in one of these formats"
        )
    aliases = row.get("answer_aliases") or []
    answers = [row.get("answer"), *(aliases if isinstance(aliases, list) else [aliases])]
    id, question = row.get("id", row.get("_id")), row.get("question")
    for name, value in (("id", id), ("question", question), *(("answer", answer) for answer in answers)):
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{place}: the field {name} must be a text that is not empty, not {value!r:.60}; fill it")
    if not supporting:
        raise UserError(f"{place}: no paragraph supports question {id!r}; remove it")
    texts = str(id), str(question), tuple(map(str, dict.fromkeys(answers)))
    return MultiHop(*texts, tuple(supporting), tuple(distracting), source, _LICENCES[source], place)


_Parts = tuple[list[Document], list[Document]]
"""Supporting and distracting documents."""


def _musique(row: dict[str, Any], place: str) -> _Parts:
    paragraphs = row["paragraphs"]
    if not isinstance(paragraphs, list) or not paragraphs:
        raise UserError(f"{place}: the field paragraphs must be a list that is not empty; fill it")
    documents, wanted = [], set()
    for number, paragraph in enumerate(paragraphs, 1):
        where = f"{place}, paragraph {number}"
        if not isinstance(paragraph, dict):
            raise UserError(
                f"{where}: the paragraph must be an object with title, paragraph_text and is_supporting; fix it"
            )
        if missing := [name for name in ("title", "paragraph_text") if name not in paragraph]:
            raise UserError(
                f"{where}: the field {missing[0]} is missing; add it (the paragraph has {_names(paragraph)})"
            )
        documents.append(_document(paragraph["title"], paragraph["paragraph_text"], where))
        if paragraph.get("is_supporting") is True:
            wanted.add(number)
    return _parted(documents, wanted, place)


def _hotpot(row: dict[str, Any], place: str) -> _Parts:
    # On the hub, columns replace the pairs.
    context = _pairs(row["context"], "title", "sentences", f"{place}: the field context")
    facts = _pairs(row["supporting_facts"], "title", "sent_id", f"{place}: the field supporting_facts")
    documents = []
    for number, (title, sentences) in enumerate(context, 1):
        whole = isinstance(sentences, list) and all(isinstance(sentence, str) for sentence in sentences)
        documents.append(_document(title, _joined(sentences) if whole else None, f"{place}, paragraph {number}"))
    wanted: set[int] = set()
    for title, _ in facts:
        if not isinstance(title, str):
            raise UserError(f"{place}: the field supporting_facts must hold pairs of title and sent_id; fix it")
        wanted |= _titled(title, documents, place)
    return _parted(documents, wanted, place)


def _titled(title: str, documents: Sequence[Document], place: str) -> set[int]:
    """The numbers of the documents with a title: spelled the same, or if there is none, in another spelling."""
    exact = {number for number, document in enumerate(documents, 1) if document.title == title.strip()}
    key = title_key(title)
    alike = exact or {number for number, document in enumerate(documents, 1) if title_key(document.title) == key}
    if not alike:
        raise UserError(f"{place}: the supporting title {title!r} is not in the field context; remove the question")
    return alike


def _parted(documents: Sequence[Document], wanted: Collection[int], place: str) -> _Parts:
    """Supporting (wanted) and other documents. Empty paragraphs are removed; published rows have some."""
    parts: _Parts = [], []
    for number, document in enumerate(documents, 1):
        if document.text:
            parts[number not in wanted].append(document)
        elif number in wanted:
            raise UserError(f"{place}, paragraph {number}: it supports the answer and is empty; remove the question")
    return parts


def _pairs(value: Any, first: str, second: str, what: str) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        firsts, seconds = value.get(first), value.get(second)
        if isinstance(firsts, list) and isinstance(seconds, list) and len(firsts) == len(seconds):
            return list(zip(firsts, seconds, strict=True))
    elif isinstance(value, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        return [(pair[0], pair[1]) for pair in value]
    raise UserError(f"{what} must hold pairs of {first} and {second}; fix it")


def _joined(sentences: Sequence[str]) -> str:
    """The sentences as one text. HotpotQA's sentences begin with a space, 2WikiMultiHopQA's do not."""
    text = ""
    for sentence in sentences:
        text += sentence if not text or text[-1].isspace() or sentence[:1].isspace() else f" {sentence}"
    return text


def _document(title: Any, text: Any, place: str) -> Document:
    if not isinstance(title, str) or not isinstance(text, str):
        raise UserError(f"{place}: title and text must be texts; fix them")
    return Document(title.strip(), text.strip())


def _names(row: dict[str, Any]) -> str:
    return f"{', '.join(row) or 'no fields':.200}"
