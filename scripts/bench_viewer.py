"""Time and memory of `longpo view` for a large data set and a large run, and of `longpo report`.

By default 10,000 pairs with contexts of 64k tokens (2.3 GiB for the data set, 5 GiB with the run's questions), and
runs of 50,000 questions for the report (4 GiB for LongMab-PO, 4 GiB for LongReward). Each figure stands next to its
limit; the exit code is 1 if one is above it. Commands run in other processes; the time of the first page is from the
start of the command to the end of the page. On a machine with other work, compare the CPU times.

    python scripts/bench_viewer.py                 python scripts/bench_viewer.py --pairs 1000 --questions 5000
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

from large_runs import write_run

_CONTEXT, _REPORT_CONTEXT = 64_000, 2_000  # tokens
# Limits: seconds of the first page and of a later page, GiB of a viewer, seconds and GiB of a report.
_FIRST, _PAGE, _VIEWER, _REPORT, _REPORT_MEMORY = 1.5, 1.0, 0.15, 30.0, 1.0


class Figures:
    """Prints figures and remembers whether one is above its limit."""

    def __init__(self) -> None:
        self.above = False

    def add(self, what: str, value: float, unit: str, limit: float | None = None) -> None:
        above = limit is not None and value > limit
        self.above |= above
        text = "" if limit is None else f"   limit {limit:g} {unit}{'   ABOVE' if above else ''}"
        print(f"  {what:<46}{value:8.2f} {unit}{text}", flush=True)


def viewed(name: Path, what: str, figures: Figures) -> None:
    """Opens a data set or a run with the viewer and prints what that took."""
    print(what, flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "lf_longpo", "view", str(name), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = re.search(r"http://\S+/", server.stdout.readline())[0]
            page = _get(address)
            figures.add("first page", time.monotonic() - began, "s", _FIRST)
            used = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            figures.add("its CPU time", sum(map(int, used)) / os.sysconf("SC_CLK_TCK"), "s")
            last = page.count('<tr id="pair-')
            figures.add("a pair, while the file is read", _seconds(lambda: _get(f"{address}pair/{last}")), "s")
            while "so far" in _get(address):
                time.sleep(0.2)
            figures.add("all pairs read after", time.monotonic() - began, "s")
            figures.add("a pair", _seconds(lambda: _get(f"{address}pair/{last + 1}")), "s", _PAGE)
            for label, query in {
                "the list, sorted by length of the prompt": "?sort=prompt_down",
                "the list, filtered by decision": "?state=undecided&sort=ratio_down",
                "the list, searched": "?text=king+road&sort=gap_down",
            }.items():
                figures.add(label, _seconds(lambda query=query: _get(address + query)), "s", _PAGE)
            if name.is_dir():
                began = time.monotonic()
                while "so far" in _get(f"{address}questions"):
                    time.sleep(0.2)
                figures.add("all questions read after", time.monotonic() - began, "s")
                figures.add("the list of questions", _seconds(lambda: _get(f"{address}questions")), "s", _PAGE)
            figures.add("peak memory", _peak(Path(f"/proc/{server.pid}/status").read_text()), "GiB", _VIEWER)
        finally:
            server.terminate()


def reported(run: Path, what: str, figures: Figures) -> None:
    """Writes a run's report."""
    print(what, flush=True)
    began = time.monotonic()
    code = (
        "import sys, time; from pathlib import Path; from lf_longpo.cli import main; code = main(sys.argv[1:]);"
        "print(time.process_time(), Path('/proc/self/status').read_text()); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "report", str(run)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures.add("longpo report", time.monotonic() - began, "s", _REPORT)
    figures.add("its CPU time", float(printed.splitlines()[1].split()[0]), "s")
    figures.add("peak memory", _peak(printed), "GiB", _REPORT_MEMORY)


def _peak(status: str) -> float:
    """GiB, from the text of /proc/PID/status."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _get(address: str) -> str:
    with urlopen(address) as answer:
        return answer.read().decode()


def main() -> int:
    """Opens each twice: read for the first time, and with its index in the cache."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10_000, help="of the viewer's data set and run (%(default)s)")
    parser.add_argument("--questions", type=int, default=50_000, help="of the report's runs (%(default)s)")
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = name
        if options.pairs:
            run = write_run(folder, "longmab", options.pairs, _CONTEXT)
            (folder / "plain").mkdir()
            os.link(folder / "large.jsonl", folder / "plain/large.jsonl")
            for what in ("first time", "again"):
                viewed(folder / "plain/large.jsonl", f"longpo view, {options.pairs:,} pairs, {what}", figures)
                viewed(run, f"longpo view, run of {options.pairs:,} pairs, {what}", figures)
        for method in ("longmab", "longreward") if options.questions else ():
            with tempfile.TemporaryDirectory(dir=folder) as of_method:
                run = write_run(Path(of_method), method, options.questions, _REPORT_CONTEXT)
                reported(run, f"longpo report, {method}, {options.questions:,} questions", figures)
    return int(figures.above)


if __name__ == "__main__":
    sys.exit(main())
