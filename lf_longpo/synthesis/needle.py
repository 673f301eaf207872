"""Seeded long documents of any length with facts at chosen depths, for tests and benchmarks; no model is needed.

A document is the log of a town. Every sentence names people and numbers, so that a fact does not differ from the rest
by its form. A question asks for the number of a locker and needs one fact (hop) or more. With one fact, the question
names the owner of the locker. With two facts, the question names a person who left the keys with the owner. Each
further fact adds a person who left the keys with the next one.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lf_longpo.errors import UserError
from lf_longpo.synthesis.person_names import FIRST, LAST
from lf_longpo.text.chunking import count_each, count_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LICENCE = "CC0-1.0"

_PLACES = "the mill|the harbour|the old bridge|the market|the chapel|the quarry|the station|the school".split("|")
_GOODS = "crates of apples|sacks of flour|barrels of tar|bales of wool|boxes of nails|jars of honey".split("|")
_KEYS = "{who} left the keys with {other}."
_NUMBER = "The locker of {who} has the number {code}."
# The log has sentences of the facts' form, too.
_LOG = (
    _KEYS,
    _NUMBER,
    "On day {day} {who} carried {number} {goods} to {place}.",
    "{who} was seen at {place} on day {day} and spoke with {other}.",
    "The clerk wrote down that {who} owed {other} {number} coins.",
    "On day {day} the gate at {place} was opened {number} times for {who}.",
    "{who} told {other} about the {goods} that were lost on day {day}.",
)
_CODES = 10_000, 99_999
# The fewest tokens besides the facts; with fewer, a depth means nothing.
_LEAST = 200
# Sentences per batch to make and count.
_BATCH = 2000


def needle_question(
    id: str, hops: int, depth: float, tokens: int, tokenizer: "PreTrainedTokenizerBase", seed: int
) -> dict[str, Any]:
    """A question with a document of its own, as a row that `longpo generate` reads.

    Args:
        id: the question's id; it determines the document together with the seed.
        hops: number of facts that the answer needs, from 1.
        depth: position of the fact with the answer: 0 is the beginning, 1 the end. The other facts are anywhere.
        tokens: length of the document, met to the length of a sentence.
        tokenizer: counts tokens.
        seed: the run's seed.

    Raises:
        UserError: the document is too short for the facts.
    """
    draw = random.Random(f"{seed}/needle/{id}")
    # No other person in the document has one of these names.
    people = [f"{first} {draw.choice(LAST)}" for first in draw.sample(FIRST, hops)]
    number = draw.randint(*_CODES)
    facts = [_KEYS.format(who=who, other=other) for who, other in pairwise(people)]
    facts.append(_NUMBER.format(who=people[-1], code=number))
    rest = tokens - sum(_counts(facts, tokenizer))
    if rest < _LEAST:
        raise UserError(f"min_tokens: {tokens} tokens are too few for {hops} facts; raise min_tokens")
    sentences, ends = _log(draw, rest, people, number, tokenizer)
    depths = [*(draw.random() for _ in facts[1:]), depth]
    # From the last to the first, so that an inserted fact does not move the positions of those before it.
    for fact, share in sorted(zip(facts, depths, strict=True), key=lambda placed: -placed[1]):
        place = next((index for index, end in enumerate(ends) if end > share * rest), len(sentences))
        sentences.insert(place, fact)
    context = " ".join(sentences)
    who = "the person that " * (hops - 1) + people[0] + " left the keys with" * (hops - 1)
    return {
        "id": id,
        "question": f"What is the number of the locker of {who}?",
        "answer": str(number),
        "context": context,
        "source": "needle",
        "licence": LICENCE,
        "documents": [id],
        "depths": depths,
        "tokens": count_tokens(context, tokenizer),
    }


def _log(
    draw: random.Random, tokens: int, people: Sequence[str], number: int, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[list[str], list[int]]:
    """Sentences of `tokens` tokens in total, without these people and this number, and the token at which each ends."""
    sentences: list[str] = []
    ends: list[int] = []
    total = 0
    for sentence, count in _counted(draw, people, number, tokenizer):
        if total + count > tokens:
            break
        total += count
        sentences.append(sentence)
        ends.append(total)
    return sentences, ends


def _counted(
    draw: random.Random, people: Sequence[str], number: int, tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[tuple[str, int]]:
    names = [name for first in FIRST for last in LAST if (name := f"{first} {last}") not in people]
    while True:
        batch = [_sentence(draw, names, number) for _ in range(_BATCH)]
        yield from zip(batch, _counts(batch, tokenizer), strict=True)


def _sentence(draw: random.Random, names: Sequence[str], number: int) -> str:
    who, other = draw.sample(names, 2)
    known = {"who": who, "other": other, "place": draw.choice(_PLACES), "goods": draw.choice(_GOODS)}
    code = draw.randint(*_CODES)
    known["code"] = str(code if code != number else _CODES[0] + _CODES[1] - code)
    return draw.choice(_LOG).format(day=draw.randint(1, 9_999), number=draw.randint(2, 999), **known)


def _counts(sentences: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return count_each([f" {sentence}" for sentence in sentences], tokenizer)
