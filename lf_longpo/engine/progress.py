"""What a person sees while a run goes on: a live display in a terminal, plain lines elsewhere.

Progress is measured in steps (calls or rounds), not in questions: with many questions in flight the first one ends
late, and a bar of questions would stand still for hours.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from lf_longpo.models.cache import StageTotals
from lf_longpo.models.ledger import Ledger

_SECONDS_BETWEEN_LINES = 10.0
T = TypeVar("T")


class Progress:
    """Counts of a run and their display. Writes to stderr, so that stdout stays for results.

    Args:
        title: what is being done.
        questions: how many there are.
        steps: steps that all questions have together.
        ledger: what calls have taken.
        name: what the questions are, where they are something else.
    """

    def __init__(self, title: str, questions: int, steps: int, ledger: Ledger, name: str = "questions") -> None:
        self.counts: Counter[str] = Counter()
        self._title = title
        self._questions = questions
        self._name = name
        self._ended = 0
        self._failed = 0
        self._steps = 0
        self._total = steps
        self._ledger = ledger
        self._began = time.monotonic()
        self._ended_all = threading.Event()
        self._carried = 0
        self._live: Live | None = None
        if sys.stderr.isatty():
            console = Console(stderr=True)
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(title, total=self._total, state="")
            self._live = Live(self, console=console, refresh_per_second=4)

    def __enter__(self) -> "Progress":
        self._carried = self._new_tokens()  # of earlier starts, which say nothing about this one's speed
        if self._live:
            self._live.start()
        else:
            threading.Thread(target=self._print_lines, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended_all.set()
        if self._live:
            self._live.stop()
        elif kind is None:
            self._print_line()

    def step(self) -> None:
        """One more step is done."""
        self._steps += 1
        self._show()

    def skip(self, steps: int) -> None:
        """Some steps were done by an earlier start, or never have to be; they do not count for the time left."""
        self._total -= steps
        self._show()

    def __rich__(self) -> Group:
        """The live display: the bar, and a line a stage."""
        return Group(self._bar, *(Text(f"  {line}", style="dim") for line in self._stages()))

    def count(self, name: str) -> None:
        """One more of something worth showing, such as a pair."""
        self.counts[name] += 1

    def question_ended(self, failed: int) -> None:
        """One more question is finished or failed; `failed` of them so far."""
        self._ended += 1
        self._failed = failed
        self._show()

    def note(self, text: str) -> None:
        """A line of its own."""
        if self._live:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _show(self) -> None:
        if self._live:
            self._bar.update(self._task, total=self._total, completed=self._steps, state=self._state())

    def _print_lines(self) -> None:
        """From a thread, since a small machine may work on one call for minutes."""
        while not self._ended_all.wait(_SECONDS_BETWEEN_LINES):
            self._print_line()

    def _print_line(self) -> None:
        now = time.monotonic()
        left = (now - self._began) / self._steps * (self._total - self._steps) if self._steps else 0.0
        print(
            f"{self._title}: {self._steps}/{self._total} steps, {self._state()}, "
            f"{now - self._began:.0f} s, about {left:.0f} s left",
            *self._stages(),
            sep="\n    ",
            file=sys.stderr,
            flush=True,
        )

    def _state(self) -> str:
        rate = (self._new_tokens() - self._carried) / max(time.monotonic() - self._began, 1e-9)
        named = [f"{number} {name}" for name, number in sorted(self.counts.items())]
        ended = f"{self._ended}/{self._questions} {self._name}"
        return ", ".join([ended, *named, f"{rate:.0f} tokens/s", f"{self._failed} failed"])

    def _new_tokens(self) -> int:
        return sum(totals.completion_tokens for totals in list(self._ledger.stages.values()))

    def _stages(self) -> list[str]:
        """Calls, tokens and cost of each stage; and what is under way in batches."""
        stages = [f"{stage}: {totals_line(totals)}" for stage, totals in list(self._ledger.stages.items())]
        return [*stages, *list(self._ledger.batches.values())]


def counted(things: Iterator[T], done: str) -> Iterator[T]:
    """Hands things on, and tells from time to time how many there were."""
    told = time.monotonic()
    for number, thing in enumerate(things, 1):
        yield thing
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            print(f"{number:,} {done}", file=sys.stderr, flush=True)


def totals_line(totals: StageTotals) -> str:
    """A stage's calls, tokens and, where they are known, its prefix cache's share and cost, for people."""
    line = f"{totals.calls:,} calls, {totals.prompt_tokens:,} prompt + {totals.completion_tokens:,} new tokens"
    if totals.cached_tokens:
        line += f", {totals.cached_tokens / totals.prompt_tokens:.0%} of the prompt cached"
    if totals.truncated:
        line += f", {totals.truncated:,} replies cut off at their most tokens"
    return line + (f", cost {totals.cost:,.4f}" if totals.cost else "")
