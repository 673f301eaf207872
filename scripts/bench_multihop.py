"""Time and memory to index 200,000 paragraphs and to make 1,000 questions of 64k tokens.

python scripts/bench_multihop.py [--paragraphs 200000] [--questions 1000] [--tokens 64000]
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lf_longpo.config import MultiHopConfig
from lf_longpo.synthesis.build import make_multihop

_WORDS = """river bridge council harvest engine library winter signal garden treaty market voyage painter harbour
railway mountain village orchestra museum festival minister journal factory laboratory meadow cathedral""".split()


def paragraphs(number: int) -> Iterator[dict[str, str]]:
    """Paragraphs of 60 to 160 words, each with a title of its own."""
    draw = random.Random(0)
    for index in range(number):
        words = draw.choices(_WORDS, k=draw.randint(60, 160))
        yield {"title": f"Article {index}", "text": f"Number {index} is about {' '.join(words)}."}


def question(number: int) -> dict[str, object]:
    """A MuSiQue row with two supporting paragraphs."""
    paragraphs = [
        {"title": f"Source {number}.{k}", "paragraph_text": f"Fact {k} of {number}.", "is_supporting": k < 2}
        for k in range(20)
    ]
    return {"id": f"q{number}", "question": f"What of {number}?", "answer": "It", "paragraphs": paragraphs}


def main() -> None:
    """Prints seconds and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paragraphs", type=int, default=200_000)
    parser.add_argument("--questions", type=int, default=1_000)
    parser.add_argument("--tokens", type=int, default=64_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, rows in (
            ("corpus.jsonl", paragraphs(options.paragraphs)),
            ("musique.jsonl", (question(number) for number in range(options.questions))),
        ):
            with (folder / path).open("w") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        for start in ("from nothing", "with the index there"):
            began = time.monotonic()
            config = MultiHopConfig(
                input=str(folder / "musique.jsonl"),
                corpus=str(folder / "corpus.jsonl"),
                output=folder / "questions.jsonl",
                tokenizer="smollm2-135m",
                min_tokens=options.tokens,
                max_tokens=options.tokens,
            )
            (card,) = make_multihop(config)
            print(
                f"{start}: {len(card.tokens)} questions of {min(card.tokens):,} to {max(card.tokens):,} tokens in "
                f"{time.monotonic() - began:.0f} s, peak so far "
                f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, index "
                f"{(folder / 'questions.index.sqlite').stat().st_size / 2**20:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
