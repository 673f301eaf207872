"""Long contexts for multi-hop questions: the documents that support the answer, somewhere among many that do not.

SeaLong's way (arXiv 2411.08147). Supporting documents and the question's own distracting ones are in each context; the
rest is drawn. All are shuffled and numbered, so neither place nor number tells which ones matter.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lf_longpo.errors import UserError
from lf_longpo.synthesis.corpus import beginning
from lf_longpo.synthesis.passages import PassageStore, shown, token_counts
from lf_longpo.synthesis.sources import Document, MultiHop, title_key
from lf_longpo.text.chunking import count_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A context may miss its target by half of the promised 5%, since sums of counts are only near the count.
_TOLERANCE = 0.025
# What is left need not be filled when it is less.
_ENOUGH = 0.005
# Passages drawn in vain, too long for what is left, before one of them is cut.
_MISSES = 50


class TooLong(UserError):
    """A question's supporting documents exceed every context."""


class ContextMaker:
    """Puts questions over long contexts.

    Args:
        fewest: tokens of a context; each question's target is drawn between these two.
        most: likewise.
        store: what distractors are drawn from.
        articles: whether the store holds articles, whose text is to stand with a paragraph of that title.
        tokenizer: counts.
        seed: the run's; a row follows from it, the question's id and the copy.
        belongs: tells by a title's key whether a document may be a distractor.
    """

    def __init__(
        self,
        fewest: int,
        most: int,
        store: PassageStore,
        articles: bool,
        tokenizer: "PreTrainedTokenizerBase",
        seed: int,
        belongs: Callable[[str], bool] = lambda key: True,
    ) -> None:
        self._range = fewest, most
        self._store = store
        self._articles = articles
        self._tokenizer = tokenizer
        self._seed = seed
        self._belongs = belongs
        self._numbering = _numbering_tokens(tokenizer)
        self.untitled: set[str] = set()
        """Titles of supporting documents that are not in the corpus; their paragraphs stand alone."""

    def row(self, question: MultiHop, copy: int) -> dict[str, Any]:
        """The question over a long context, as `longpo generate` reads it.

        Args:
            question: as published.
            copy: 0, or which further context of the same question it is.

        Raises:
            TooLong: the supporting documents exceed every target.
            UserError: the store has too little to reach the target.
        """
        draw = random.Random(f"{self._seed}/{question.id}/{copy}")
        supporting = self._in_full(question.supporting, note=True)
        needed = int(sum(tokens + self._numbering for tokens in token_counts(supporting, self._tokenizer)))
        if needed > self._range[1]:
            raise TooLong(
                f"{question.place}: the supporting documents alone take {needed} tokens, more than max_tokens; raise "
                "it or lower article_tokens"
            )
        target = max(self._target(draw), needed)
        chosen = [*supporting, *self._chosen_distractors(question, supporting, target - needed, target, draw)]
        draw.shuffle(chosen)
        row = _row(question, copy, chosen, {id(document) for document in supporting})
        row["tokens"] = count_tokens(row["context"], self._tokenizer)
        if row["tokens"] < target * (1 - 2 * _TOLERANCE):
            raise UserError(
                f"{question.place}: all passages together reach {row['tokens']} of {target} tokens; name a larger "
                "corpus or lower max_tokens"
            )
        return row

    def _chosen_distractors(
        self, question: MultiHop, supporting: Sequence[Document], left: float, target: int, draw: random.Random
    ) -> list[Document]:
        """Distractors of `left` tokens in all; the last one is cut where none fits."""
        avoided = {title_key(document.title) for document in supporting} - {""}
        texts = {document.text for document in supporting}
        chosen: list[Document] = []
        long_ones: list[Document] = []
        for distractor, tokens in self._distractors(question, draw):
            if left <= target * _ENOUGH:
                break
            key = title_key(distractor.title)
            if key in avoided or distractor.text in texts or not self._belongs(key or distractor.text):
                continue
            if tokens + self._numbering <= left + target * _TOLERANCE:
                texts.add(distractor.text)
                chosen.append(distractor)
                left -= tokens + self._numbering
                continue
            long_ones.append(distractor)
            if len(long_ones) == _MISSES:
                break
        if left > target * _TOLERANCE and long_ones:
            title = long_ones[0].title
            room = int(left - self._numbering) - count_tokens(f"{title}\n", self._tokenizer)
            if room > 0:
                chosen.append(Document(title, beginning(long_ones[0].text, room, self._tokenizer)))
        return chosen

    def _target(self, draw: random.Random) -> int:
        """One whose neighbourhood lies within the range, where there is room for that."""
        fewest, most = self._range
        low, high = int(fewest * (1 + _TOLERANCE)), int(most * (1 - _TOLERANCE))
        return draw.randint(low, high) if low < high else (fewest + most) // 2

    def _in_full(self, paragraphs: Sequence[Document], note: bool = False) -> list[Document]:
        """Paragraphs, word for word, with the articles that they are from; each article stands once."""
        if not self._articles:
            return list(paragraphs)
        by_title: dict[str, list[Document]] = {}
        for paragraph in paragraphs:
            by_title.setdefault(paragraph.title, []).append(paragraph)
        full = []
        for title, its in by_title.items():
            article = self._store.titled(title)
            if article is None:
                full += its
                if note:
                    self.untitled.add(title)
                continue
            others = [paragraph.text for paragraph in its if paragraph.text not in article.text]
            full.append(Document(title, "\n".join([*others, article.text])))
        return full

    def _distractors(self, question: MultiHop, draw: random.Random) -> Iterator[tuple[Document, int]]:
        """The question's own first, which are the hardest to tell from the supporting ones."""
        own = self._in_full(draw.sample(question.distracting, len(question.distracting)))
        yield from zip(own, token_counts(own, self._tokenizer), strict=True)
        for passage in self._store.drawn(draw):
            yield Document(passage.title, passage.text), passage.tokens


def _numbered(documents: Sequence[Document]) -> str:
    """A context."""
    return "\n\n".join(f"Passage {number}:\n{shown(one.title, one.text)}" for number, one in enumerate(documents, 1))


def _numbering_tokens(tokenizer: "PreTrainedTokenizerBase") -> float:
    """What standing in a context adds to a passage's tokens, on the average of the first fifty."""
    documents = [Document("A title", "A sentence, and another one. The last.")] * 50
    alone = sum(token_counts(documents, tokenizer))
    return (count_tokens(_numbered(documents), tokenizer) - alone) / len(documents)


def _row(question: MultiHop, copy: int, chosen: list[Document], supporting: set[int]) -> dict[str, Any]:
    return {
        "id": question.id if copy == 0 else f"{question.id}#{copy}",
        "question": question.question,
        "answer": list(question.answers),
        "context": _numbered(chosen),
        "source": question.source,
        "licence": question.licence,
        "documents": [one.title for one in chosen],
        "supporting": [number for number, one in enumerate(chosen, 1) if id(one) in supporting],
    }
