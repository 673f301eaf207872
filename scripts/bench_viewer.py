"""Time until `longpo view` shows a large data set of long contexts, and its memory.

A generated data set (by default 10,000 pairs with contexts of 64k tokens: 4.4 GiB) is opened with the command, in
another process. The time is from the start of the command to the end of the first page's response.

    python scripts/bench_viewer.py                     python scripts/bench_viewer.py --pairs 1000
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

_WORDS = "river council harvest engine library winter signal garden treaty market voyage painter harbour".split()
# Words in a context; each is one token.
_CONTEXT = 64_000


def write(path: Path, pairs: int) -> None:
    """Pairs whose contexts are different cuts of one long text."""
    draw = random.Random(0)
    text = " ".join(draw.choices(_WORDS, k=3 * _CONTEXT))
    length = len(text) // 3
    with path.open("w") as file:
        for number in range(pairs):
            start = draw.randrange(2 * length)
            row = {
                "id": f"q{number}",
                "input": f"What is number {number}?",
                "answer": "It",
                "prompt": f"{text[start : start + length]}\n\nWhat is number {number}?",
                "chosen": f"Number {number} is {' '.join(draw.choices(_WORDS, k=100))}.",
                "rejected": f"It is {' '.join(draw.choices(_WORDS, k=100))}.",
                "chosen_reward": 1.0,
                "rejected_reward": draw.random(),
            }
            file.write(json.dumps(row) + "\n")


def opened(path: Path, what: str) -> None:
    """Opens it once and prints what that took."""
    began = time.monotonic()
    command = [sys.executable, "-m", "lf_longpo", "view", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = re.search(r"http://\S+/", server.stdout.readline())[0]
            first = _get(address)
            shown = time.monotonic() - began
            rows = first.count("/pair/")
            pair_seconds = time.monotonic()
            _get(f"{address}pair/{min(rows, 5)}")
            pair_seconds = time.monotonic() - pair_seconds
            while "so far" in _get(address):
                time.sleep(0.2)
            whole = time.monotonic() - began
            search = time.monotonic()
            found = re.search(r"Page 1 of \d+, ([\d,]+) pairs", _get(f"{address}?text=painter+harbour&sort=gap_down"))[
                1
            ]
            search = time.monotonic() - search
            status = Path(f"/proc/{server.pid}/status").read_text()
            memory = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20
            print(
                f"{what}: first page with {rows} pairs after {shown:.2f} s, one pair {pair_seconds:.2f} s, "
                f"all read after {whole:.1f} s, a search ({found} found) {search:.2f} s, peak memory {memory:.2f} GiB",
                flush=True,
            )
        finally:
            server.terminate()


def _get(address: str) -> str:
    with urlopen(address) as answer:
        return answer.read().decode()


def main() -> None:
    """Opens it twice: read for the first time, and with its index in the cache."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10_000)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = name
        path = Path(name) / "pairs.jsonl"
        write(path, pairs)
        print(f"{pairs:,} pairs, {path.stat().st_size / 2**30:.2f} GiB", flush=True)
        opened(path, "first time")
        opened(path, "again")


if __name__ == "__main__":
    main()
