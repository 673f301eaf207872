"""Peak memory of `longpo generate` with 20,000 questions over contexts of 64k tokens.

    python scripts/bench_client_memory.py                       # stops after 300 seconds, as Ctrl-C would
    python scripts/bench_client_memory.py --seconds 7200        # long enough for all of them

All questions are read and checked once. Each is then chunked and probed and gets two rounds of rollouts, against a
server in another process. Memory depends on the questions in flight, not on their total, so the peak is reached long
before the end; the memory at ten times shows whether it grows.
"""

import argparse
import asyncio
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_rollout import serve

WORDS = "lamp tower river stone light word north harbour seven blue bridge answer winter garden letter".split()
SENTENCES = 4700  # about 64k tokens and 300 KB


def rows(number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Questions, each with a context of its own."""
    for index in range(number):
        draw = random.Random(index)
        start = " ".join(draw.choices(WORDS, k=12))
        context = f"The code is {index}. " + f"{start}. ".capitalize() * SENTENCES
        yield f"row {index}", {"id": f"q{index}", "question": "Which code?", "answer": str(index), "context": context}


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=300.0, help="seconds of work after the check (%(default)s)")
    options = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = "none"
    context = multiprocessing.get_context("spawn")
    port: multiprocessing.Queue = context.Queue()
    server = context.Process(target=serve, args=(port, 64, 0.0001), daemon=True)
    server.start()

    from lf_longpo.config import LongMabGenerateConfig
    from lf_longpo.data import questions
    from lf_longpo.generation.generate import generate

    questions.places_and_rows = lambda *_: rows(options.questions)
    with tempfile.TemporaryDirectory() as name:
        config = LongMabGenerateConfig(
            method="longmab",
            input="made on the fly",
            output_dir=Path(name) / "run",
            dataset_dir=Path(name) / "data",
            dataset_name="bench",
            policy={"base_url": f"http://127.0.0.1:{port.get()}/v1", "model": "m", "context_window": 131_072},
            tokenizer="smollm2-135m",
            longmab={"rounds": 2, "init": "random"},
            pairs={"template": "llama3"},
        )
        journal = config.output_dir / "probes.jsonl"

        def stop() -> None:
            while not journal.is_file():
                threading.Event().wait(0.5)
            for _ in range(10):
                threading.Event().wait(options.seconds / 10)
                print(f"{_resident():.2f} GiB", flush=True)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=stop, daemon=True).start()
        result = asyncio.run(generate(config))
        ended = result.summary["rollouts"] // 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.questions} questions checked, {ended} worked on, peak {peak:.2f} GiB")
    server.terminate()


if __name__ == "__main__":
    main()
