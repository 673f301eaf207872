"""Seeded demo questions: invented village registers with single-hop and two-hop questions about their people.

The quickstart runs on them, so that it needs no data. Each document is made for one question with names of its own, and
training and held-out questions share no document. A 135M model gets some answers right and some wrong, as preference
pairs need.

    python -m lf_longpo.synthesis.demo runs/demo --train 20 --held-out 8
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lf_longpo.files.journal import write_whole
from lf_longpo.synthesis.person_names import FIRST, LAST

_VALUES = {
    "job": "baker clockmaker ferryman teacher beekeeper carpenter nurse blacksmith tailor gardener potter".split(),
    "town": "Ravenmoor Silbertal Oakhollow Kaltwasser Brindle Steinfurt Marrowby Westhaven Nordby Lindau".split(),
    "instrument": "violin trumpet cello flute accordion harp banjo clarinet drum organ".split(),
    "animal": "goat parrot donkey ferret goose tortoise pony rabbit peacock sheepdog".split(),
    "dish": "lentils dumplings pancakes goulash trout pumpkin noodles beetroot porridge mushrooms".split(),
}
_FACTS = {
    "job": "{name} works as a {value}.",
    "town": "{name} was born in {value}.",
    "instrument": "{name} plays the {value}.",
    "animal": "{name} keeps a {value}.",
    "dish": "{name} likes to eat {value}.",
}
_QUESTIONS = {
    "job": "What does {who} work as?",
    "town": "In which town was {who} born?",
    "instrument": "Which instrument does {who} play?",
    "animal": "Which animal does {who} keep?",
    "dish": "What does {who} like to eat?",
}
_FILLER = [
    "The house stands near the old mill.",
    "The roof was mended after the storm in spring.",
    "On market days the gate is open until the evening.",
    "A stone wall runs along the garden.",
    "The well behind the house never ran dry.",
    "Letters arrive here twice a week.",
    "The lane in front of it floods every autumn.",
    "Nobody remembers who planted the lime tree.",
]


@dataclass(frozen=True, slots=True)
class _Person:
    name: str
    facts: dict[str, str]
    neighbour: str


def demo_questions(
    number: int, seed: int, people: tuple[int, int] = (30, 72), prefix: str = "demo", two_hops: bool = True
) -> Iterator[dict[str, str]]:
    """Questions with the fields id, question, answer, context.

    Args:
        number: how many questions.
        seed: the same seed gives the same questions.
        people: the fewest and the most people in a document; a person takes about 80 tokens.
        prefix: the beginning of every id.
        two_hops: whether every third question asks about the neighbour of a person.
    """
    for index in range(number):
        draw = random.Random(f"{seed}/{prefix}/{index}")
        # The smaller of two draws gives mostly short documents, because a small machine reads all of them.
        village = _village(draw, min(draw.randint(*people), draw.randint(*people)))
        person = draw.choice(village)
        fact = draw.choice(list(_FACTS))
        if two_hops and index % 3 == 2:
            who = f"the neighbour of {person.name}"
            person = next(neighbour for neighbour in village if neighbour.name == person.neighbour)
        else:
            who = person.name
        yield {
            "id": f"{prefix}-{index:03d}",
            "question": _QUESTIONS[fact].format(who=who),
            "answer": person.facts[fact],
            "context": "\n\n".join(_paragraph(draw, person) for person in village),
        }


def _village(draw: random.Random, size: int) -> list[_Person]:
    names = draw.sample([f"{first} {last}" for first in FIRST for last in LAST], size)
    neighbours = names[1:] + names[:1]
    people = [
        _Person(name, {fact: draw.choice(values) for fact, values in _VALUES.items()}, neighbour)
        for name, neighbour in zip(names, neighbours, strict=True)
    ]
    draw.shuffle(people)
    return people


def _paragraph(draw: random.Random, person: _Person) -> str:
    sentences = [_FACTS[fact].format(name=person.name, value=value) for fact, value in person.facts.items()]
    sentences.append(f"The neighbour of {person.name} is {person.neighbour}.")
    draw.shuffle(sentences)
    return " ".join([*sentences, *draw.sample(_FILLER, draw.randint(0, 2))])


def main() -> None:
    """Writes train.jsonl and held_out.jsonl."""
    parser = argparse.ArgumentParser(description="Seeded demo questions over long documents.")
    parser.add_argument("output", type=Path, help="folder for train.jsonl and held_out.jsonl")
    parser.add_argument("--train", type=int, default=20, help="training questions (%(default)s)")
    parser.add_argument("--held-out", type=int, default=8, help="held-out questions (%(default)s)")
    parser.add_argument(
        "--people",
        type=int,
        nargs=2,
        default=(30, 72),
        metavar=("FEWEST", "MOST"),
        help="people in a document; a person takes about 80 tokens (30 72)",
    )
    parser.add_argument("--one-hop", action="store_true", help="ask no question about a neighbour")
    parser.add_argument("--seed", type=int, default=7, help="(%(default)s)")
    options = parser.parse_args()
    for name, number in (("train", options.train), ("held_out", options.held_out)):
        questions = demo_questions(number, options.seed, tuple(options.people), name, two_hops=not options.one_hop)
        write_whole(options.output / f"{name}.jsonl", (json.dumps(question) + "\n" for question in questions))
        print(f"{number} questions -> {options.output / f'{name}.jsonl'}")


if __name__ == "__main__":
    main()
