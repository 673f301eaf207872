"""The time to chunk a 64k-token document, divided by the time to tokenise it; both are measured in this run.

python scripts/bench_chunking.py [TEXT_FILE] [--tokenizer smollm2-135m]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.synthesis.demo import demo_questions
from lf_longpo.text.chunking import chunk_sentences, chunk_tokens


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Prints the median and the range of the ratio over alternating runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", type=Path, help="a text file, repeated or cut to 64k tokens (demo text)")
    parser.add_argument("--tokenizer", default="smollm2-135m", help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="(%(default)s)")
    options = parser.parse_args()
    tokenizer = load_tokenizer(options.tokenizer, "--tokenizer")
    demo = "\n\n".join(question["context"] for question in demo_questions(30, seed=1))
    text = options.text.read_text(encoding="utf-8") if options.text else demo
    text = text * (64_000 // len(tokenizer(text, verbose=False)["input_ids"]) + 1)
    text = chunk_tokens(text, tokenizer, 65_536)[0]
    ratios = []
    for _ in range(options.repeats):
        once = seconds(lambda: tokenizer(text, add_special_tokens=False, verbose=False))
        ratios.append(seconds(lambda: chunk_sentences(text, tokenizer, 1500, 2)) / once)
    print(
        f"chunking 65,536 tokens costs {statistics.median(ratios):.2f} tokenisations "
        f"(median of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
