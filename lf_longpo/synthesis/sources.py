"""Published multi-hop questions: each with the paragraphs that support its answer and some that only look like it.

MuSiQue (arXiv 2108.00573), HotpotQA (arXiv 1809.09600) and 2WikiMultiHopQA (arXiv 2011.01060), as published or as they
are on the hub.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lf_longpo.errors import UserError

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
    """Where it was read, for errors."""

    @property
    def key(self) -> str:
        """Tells it from all others."""
        return self.id


def title_key(title: str) -> str:
    """What two spellings of one title have in common: no case, no underscores, composed characters."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", title)).strip().casefold()


def read_multihop(placed: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, MultiHop]]:
    """Streams questions from rows, each behind its place.

    MuSiQue's unanswerable questions are passed over.

    Raises:
        UserError: a row that is none of the formats, or whose supporting paragraphs are not all there.
    """
    for place, row in placed:
        if not isinstance(row, dict):
            raise UserError(f"{place}: an object of MuSiQue, HotpotQA or 2WikiMultiHopQA is needed")
        if row.get("answerable") is False:
            continue
        if "paragraphs" in row:
            supporting, distracting = _musique(row, place)
            source = "musique"
        elif "context" in row and "supporting_facts" in row:
            supporting, distracting = _hotpot(row, place)
            source = "2wikimultihopqa" if "evidences" in row else "hotpotqa"
        else:
            raise UserError(
                f"{place}: neither the field paragraphs (MuSiQue) nor context and supporting_facts (HotpotQA, "
                "2WikiMultiHopQA) is there; name a file of one of them"
            )
        aliases = row.get("answer_aliases") or []
        answers = [row.get("answer"), *(aliases if isinstance(aliases, list) else [aliases])]
        id, question = row.get("id", row.get("_id")), row.get("question")
        for name, value in (("id", id), ("question", question), *(("answer", answer) for answer in answers)):
            if not isinstance(value, str) or not value.strip():
                raise UserError(f"{place}: the field {name} must be a text that is not empty, not {value!r:.60}")
        if not supporting:
            raise UserError(f"{place}: no paragraph supports question {id!r}; remove it")
        told = tuple(dict.fromkeys(answers)), tuple(supporting), tuple(distracting)
        yield place, MultiHop(id, question, *told, source, _LICENCES[source], place)


def _musique(row: dict[str, Any], place: str) -> tuple[list[Document], list[Document]]:
    parts: dict[bool, list[Document]] = {True: [], False: []}
    for number, paragraph in enumerate(_listed(row["paragraphs"], f"{place}: the field paragraphs"), 1):
        known = paragraph if isinstance(paragraph, dict) else {}
        document = _document(known.get("title"), known.get("paragraph_text"), f"{place}, paragraph {number}")
        parts[known.get("is_supporting") is True].append(document)
    return parts[True], parts[False]


def _hotpot(row: dict[str, Any], place: str) -> tuple[list[Document], list[Document]]:
    # On the hub there are columns in the place of pairs.
    context = _pairs(row["context"], "title", "sentences", f"{place}: the field context")
    facts = _pairs(row["supporting_facts"], "title", "sent_id", f"{place}: the field supporting_facts")
    documents = []
    for number, (title, sentences) in enumerate(context, 1):
        text = _joined(sentences) if isinstance(sentences, list) else None
        documents.append(_document(title, text, f"{place}, paragraph {number}"))
    wanted = {title.strip() if isinstance(title, str) else title for title, _ in facts}
    if missing := wanted - {document.title for document in documents}:
        raise UserError(
            f"{place}: the supporting title {missing.pop()!r} is not in the field context; remove the question"
        )
    parts: dict[bool, list[Document]] = {True: [], False: []}
    for document in documents:
        parts[document.title in wanted].append(document)
    return parts[True], parts[False]


def _pairs(value: Any, first: str, second: str, what: str) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        columns = [value.get(name) for name in (first, second)]
        if all(isinstance(column, list) for column in columns) and len(columns[0]) == len(columns[1]):
            return list(zip(*columns, strict=True))
    elif isinstance(value, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        return [(one, two) for one, two in value]
    raise UserError(f"{what} must hold pairs of {first} and {second}")


def _joined(sentences: Sequence[Any]) -> str:
    """One text. HotpotQA's sentences begin with their space, 2WikiMultiHopQA's do not."""
    text = ""
    for sentence in map(str, sentences):
        text += sentence if not text or text[-1].isspace() or sentence[:1].isspace() else f" {sentence}"
    return text


def _listed(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{what} must be a list that is not empty")
    return value


def _document(title: Any, text: Any, place: str) -> Document:
    if not isinstance(title, str) or not isinstance(text, str) or not text.strip():
        raise UserError(f"{place}: a title and a text that is not empty are needed")
    return Document(title.strip(), text.strip())
