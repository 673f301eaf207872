"""Long contexts for multi-hop questions: the documents that support the answer, somewhere among many that do not.

SeaLong's way (arXiv 2411.08147). Supporting documents and the question's own distracting ones are in each context; the
rest is drawn. All are shuffled and numbered, so neither place nor number tells which ones matter.
"""

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lf_longpo.errors import UserError
from lf_longpo.synthesis.passages import PassageStore, shown, token_counts
from lf_longpo.synthesis.sources import Document, MultiHop, title_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A context may exceed its target by half of the promised 5%, since sums of counts are only near the count.
_TOLERANCE = 0.025
# What is left need not be filled when it is less.
_ENOUGH = 0.005
# Passages drawn in vain, too long for what is left, before the context is as long as it gets.
_MISSES = 200


class ContextMaker:
    """Puts questions over long contexts.

    Args:
        fewest: tokens of a context; each question's target is drawn between these two.
        most: likewise.
        store: what distractors are drawn from.
        articles: whether the store holds articles, whose text is to stand with a supporting paragraph of that title.
        tokenizer: counts.
        seed: the run's; a row follows from it, the question's id and the copy.
    """

    def __init__(
        self,
        fewest: int,
        most: int,
        store: PassageStore,
        articles: bool,
        tokenizer: "PreTrainedTokenizerBase",
        seed: int,
    ) -> None:
        self._range = fewest, most
        self._store = store
        self._articles = articles
        self._tokenizer = tokenizer
        self._seed = seed
        self._numbering = len(tokenizer.tokenize("\n\nPassage 100:\n"))

    def row(self, question: MultiHop, copy: int) -> dict[str, Any]:
        """The question over a long context, as `longpo generate` reads it.

        Args:
            question: as published.
            copy: 0, or which further context of the same question it is.

        Raises:
            UserError: the store has too little to reach the target, or the supporting documents exceed it.
        """
        draw = random.Random(f"{self._seed}/{question.id}/{copy}")
        target = self._target(draw)
        low, high = target * (1 - _ENOUGH), target * (1 + _TOLERANCE)
        full = (self._in_full(document) if self._articles else document for document in question.supporting)
        supporting = list(dict.fromkeys(full))  # two paragraphs may be of one article
        total = sum(tokens + self._numbering for tokens in token_counts(supporting, self._tokenizer))
        if total > high:
            raise UserError(
                f"question {question.id!r}: its supporting documents alone take {total} tokens, its context is to have "
                f"{target}; raise min_tokens or lower article_tokens"
            )
        avoided = {title_key(document.title) for document in supporting} - {""}
        texts = {document.text for document in supporting}
        chosen, misses = list(supporting), 0
        for distractor, tokens in self._distractors(question, draw):
            if total >= low or misses == _MISSES:
                break
            if title_key(distractor.title) in avoided or distractor.text in texts:
                continue
            if total + tokens + self._numbering > high:
                misses += 1
                continue
            texts.add(distractor.text)
            chosen.append(distractor)
            total += tokens + self._numbering
        if total < target * (1 - 2 * _TOLERANCE):
            raise UserError(
                f"question {question.id!r}: all passages together reach {total} of {target} tokens; name a larger "
                "corpus or lower max_tokens"
            )
        draw.shuffle(chosen)
        return _row(question, copy, chosen, {id(document) for document in supporting}) | {"tokens": total}

    def _target(self, draw: random.Random) -> int:
        """One whose neighbourhood lies within the range, where there is room for that."""
        fewest, most = self._range
        low, high = int(fewest * (1 + _TOLERANCE)), int(most * (1 - _TOLERANCE))
        return draw.randint(low, high) if low < high else (fewest + most) // 2

    def _in_full(self, document: Document) -> Document:
        """A supporting paragraph with the article that it is from; the paragraph itself stays word for word."""
        article = self._store.titled(document.title)
        if article is None or article.text == document.text:
            return document
        text = article.text if document.text in article.text else f"{document.text}\n{article.text}"
        return Document(document.title, text)

    def _distractors(self, question: MultiHop, draw: random.Random) -> Iterator[tuple[Document, int]]:
        """The question's own first, which are the hardest to tell from the supporting ones."""
        own = draw.sample(question.distracting, len(question.distracting))
        yield from zip(own, token_counts(own, self._tokenizer), strict=True)
        for passage in self._store.drawn(draw):
            yield Document(passage.title, passage.text), passage.tokens


def _row(question: MultiHop, copy: int, chosen: list[Document], supporting: set[int]) -> dict[str, Any]:
    passages = (f"Passage {number}:\n{shown(one.title, one.text)}" for number, one in enumerate(chosen, 1))
    return {
        "id": question.id if copy == 0 else f"{question.id}#{copy}",
        "question": question.question,
        "answer": list(question.answers),
        "context": "\n\n".join(passages),
        "source": question.source,
        "licence": question.licence,
        "documents": [one.title for one in chosen],
        "supporting": [number for number, one in enumerate(chosen, 1) if id(one) in supporting],
    }
