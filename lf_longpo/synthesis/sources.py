"""Published multi-hop questions: each with the paragraphs that support its answer and some that only look like it.

MuSiQue (arXiv 2108.00573), HotpotQA (arXiv 1809.09600) and 2WikiMultiHopQA (arXiv 2011.01060), as published or as they
are on the hub.
"""

import re
import unicodedata
from collections.abc import Iterator
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


def title_key(title: str) -> str:
    """What two spellings of one title have in common: no case, no underscores, composed characters."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", title)).strip().casefold()


def read_multihop(placed: Iterator[tuple[str, Any]]) -> Iterator[MultiHop]:
    """Streams questions from rows, each given behind its place.

    MuSiQue's unanswerable questions are passed over.

    Raises:
        UserError: a row that is none of the formats, or no paragraph of it supports the answer.
    """
    for place, row in placed:
        if not isinstance(row, dict):
            raise UserError(f"{place}: an object of MuSiQue, HotpotQA or 2WikiMultiHopQA is needed")
        if row.get("answerable") is False:
            continue
        if "paragraphs" in row:
            documents, supports = _musique(row, place)
            source = "musique"
        elif "context" in row and "supporting_facts" in row:
            documents, supports = _hotpot(row, place)
            source = "2wikimultihopqa" if "evidences" in row else "hotpotqa"
        else:
            raise UserError(
                f"{place}: neither the field paragraphs (MuSiQue) nor context and supporting_facts (HotpotQA, "
                "2WikiMultiHopQA) is there; name a file of one of them"
            )
        id, question = row.get("id", row.get("_id")), row.get("question")
        answers = [row.get("answer"), *(row.get("answer_aliases") or ())]
        for name, value in (("id", id), ("question", question), *(("answer", answer) for answer in answers)):
            if not isinstance(value, str) or not value.strip():
                raise UserError(f"{place}: the field {name} must be a text that is not empty, not {value!r:.60}")
        if not any(supports):
            raise UserError(f"{place}: no paragraph supports question {id!r}; remove it")
        told = zip(documents, supports, strict=True)
        by_kind: dict[bool, list[Document]] = {True: [], False: []}
        for document, support in told:
            by_kind[support].append(document)
        parts = tuple(by_kind[True]), tuple(by_kind[False])
        yield MultiHop(id, question, tuple(dict.fromkeys(answers)), *parts, source, _LICENCES[source])


def _musique(row: dict[str, Any], place: str) -> tuple[list[Document], list[bool]]:
    documents, supports = [], []
    for number, paragraph in enumerate(_listed(row["paragraphs"], f"{place}: the field paragraphs"), 1):
        known = paragraph if isinstance(paragraph, dict) else {}
        documents.append(_document(known.get("title"), known.get("paragraph_text"), f"{place}, paragraph {number}"))
        supports.append(known.get("is_supporting") is True)
    return documents, supports


def _hotpot(row: dict[str, Any], place: str) -> tuple[list[Document], list[bool]]:
    context, facts = row["context"], row["supporting_facts"]
    if isinstance(context, dict):  # as on the hub: columns instead of pairs
        context = list(zip(context.get("title", ()), context.get("sentences", ()), strict=False))
    titles = facts.get("title", ()) if isinstance(facts, dict) else [fact[0] for fact in facts if fact]
    documents = []
    for number, entry in enumerate(_listed(context, f"{place}: the field context"), 1):
        if not isinstance(entry, list | tuple) or len(entry) != 2 or not isinstance(entry[1], list):
            raise UserError(f"{place}, paragraph {number}: a title and a list of sentences are needed")
        documents.append(_document(entry[0], "".join(map(str, entry[1])), f"{place}, paragraph {number}"))
    return documents, [document.title in set(titles) for document in documents]


def _listed(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{what} must be a list that is not empty")
    return value


def _document(title: Any, text: Any, place: str) -> Document:
    if not isinstance(title, str) or not isinstance(text, str) or not text.strip():
        raise UserError(f"{place}: a title and a text that is not empty are needed")
    return Document(title.strip(), text.strip())
