"""Long contexts for multi-hop questions: the documents that support the answer among many that do not.

As in SeaLong (arXiv 2411.08147), each context has the supporting documents and the question's own distracting ones; the
rest is drawn. All are shuffled and numbered, so that neither position nor number shows which documents matter.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lf_longpo.errors import UserError
from lf_longpo.synthesis.corpus import beginning
from lf_longpo.synthesis.multihop_questions import Document, MultiHop, title_key
from lf_longpo.synthesis.passages import PassageStore, shown, token_counts
from lf_longpo.text.chunking import count_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A context may miss its target by half of the promised 5%, because the sum of the parts' tokens is an approximation.
_TOLERANCE = 0.025
# A context is full when less than this share of its target is left.
_ENOUGH = 0.005
# Passages that are drawn and too long for what is left, before one of them is cut.
_MISSES = 50


class TooLong(UserError):
    """The supporting documents of a question are longer than any context."""


class ContextMaker:
    """Makes long contexts for questions.

    Args:
        fewest: the fewest tokens of a context; the target of each question is drawn from `fewest` to `most`.
        most: the most tokens of a context.
        store: the passages that distractors are drawn from.
        articles: whether the store holds articles, which replace the paragraphs with their title.
        tokenizer: counts tokens.
        seed: the run's seed; it determines a row together with the question's id and the copy.
        belongs: whether a document may be a distractor, by the key of its title.
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
        """Titles of supporting documents that are not in the corpus; contexts have their paragraphs only."""

    def row(self, question: MultiHop, copy: int) -> dict[str, Any]:
        """The question with a long context, as `longpo generate` reads it.

        Args:
            question: the published question.
            copy: the number of the question's context, from 0.

        Raises:
            TooLong: the supporting documents exceed every target.
            UserError: the store has too few passages to reach the target.
        """
        draw = random.Random(f"{self._seed}/{question.id}/{copy}")
        supporting = self._in_full(question.supporting, note=True)
        needed = int(sum(tokens + self._numbering for tokens in token_counts(supporting, self._tokenizer)))
        if needed > self._range[1]:
            raise TooLong(
                f"{question.place}: the supporting documents alone take {needed} tokens, more than max_tokens; raise "
                "max_tokens or lower article_tokens"
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
        """Distractors of `left` tokens in total; if no more fits, one that is too long is cut."""
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
        """A number of tokens that stays within the range when it is missed by the tolerance, if the range allows it."""
        fewest, most = self._range
        low, high = int(fewest * (1 + _TOLERANCE)), int(most * (1 - _TOLERANCE))
        return draw.randint(low, high) if low < high else (fewest + most) // 2

    def _in_full(self, paragraphs: Sequence[Document], note: bool = False) -> list[Document]:
        """The articles of paragraphs, each once and with its paragraphs word for word; else the paragraph itself."""
        if not self._articles:
            return list(paragraphs)
        by_title: dict[str, list[Document]] = {}
        for paragraph in paragraphs:
            by_title.setdefault(paragraph.title, []).append(paragraph)
        full = []
        for title, paragraphs_of_title in by_title.items():
            article = self._store.titled(title)
            if article is None:
                full += paragraphs_of_title
                if note:
                    self.untitled.add(title)
                continue
            missing = [paragraph.text for paragraph in paragraphs_of_title if paragraph.text not in article.text]
            full.append(Document(title, "\n".join([*missing, article.text])))
        return full

    def _distractors(self, question: MultiHop, draw: random.Random) -> Iterator[tuple[Document, int]]:
        """Distractors with their tokens: first the question's own, which are most similar to the supporting ones."""
        own = self._in_full(draw.sample(question.distracting, len(question.distracting)))
        yield from zip(own, token_counts(own, self._tokenizer), strict=True)
        for passage in self._store.drawn(draw):
            yield Document(passage.title, passage.text), passage.tokens


def _numbered(documents: Sequence[Document]) -> str:
    """The text of a context."""
    passages = [shown(document.title, document.text) for document in documents]
    return "\n\n".join(f"Passage {number}:\n{passage}" for number, passage in enumerate(passages, 1))


def _numbering_tokens(tokenizer: "PreTrainedTokenizerBase") -> float:
    """Tokens that the number of a passage takes in a context, on average over the first fifty."""
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
        "documents": [document.title for document in chosen],
        "supporting": [number for number, document in enumerate(chosen, 1) if id(document) in supporting],
    }
