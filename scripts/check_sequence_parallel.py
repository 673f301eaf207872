"""Compares trainings whose rows or weights are split over processes to the same trainings in one process, in a table.

    python scripts/check_sequence_parallel.py                   # all cases, on gloo and in float32
    python scripts/check_sequence_parallel.py --only zero3 sft  # the cases with one of these words in their name
    python scripts/check_sequence_parallel.py --only fsdp       # weights split by FSDP2

Each case trains a tiny random model for five steps through LLaMA-Factory with one process, and again with 2 or 4
processes and `--sequence-parallel`. The table has the largest relative difference of the logged figures (loss,
log-probabilities, rewards, gradient norm, evaluation) and of the trained parameters, and the name of the largest.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "plugin/train")]

from split_training import CASES, differences  # noqa: E402  the path above leads to it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD")
    options = parser.parse_args()
    table = Table("case", "P", "processes", "largest", "of")
    failed = 0
    for name, case in CASES.items():
        if not any(word in name for word in options.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = differences(case, Path(folder))
                worst = max(found, key=found.__getitem__)
                cells = [f"{found[worst]:.1e}", worst]
                failed += found[worst] > case.tolerance
            except AssertionError as error:
                print(error, file=sys.stderr)
                cells, failed = ["failed", ""], failed + 1
        print(f"{name}: {', '.join(cells)}", flush=True)
        table.add_row(name, str(case.parallel), str(case.processes), *cells)
    Console(width=120).print(table)
    print(f"{failed} of {table.row_count} differ by more than 1e-5 (qlora: 1e-4)")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
