"""The progress of a run: a live display in a terminal, plain lines elsewhere.

Progress is measured in steps (calls or rounds), not in questions: with many questions in flight, the first question
ends late, and a bar of questions would not move for hours.
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
    """Shows the progress of a run on stderr, so that stdout holds results only.

    Args:
        title: the name of the work.
        questions: how many questions there are.
        steps: the steps of all questions together.
        ledger: holds the calls so far.
        name: the noun for questions.
    """

    def __init__(self, title: str, questions: int, steps: int, ledger: Ledger, name: str = "questions") -> None:
        self._counts: Counter[str] = Counter()
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
        self._carried = self._new_tokens()  # of earlier starts; they do not count for the speed
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
        """Counts one more finished step."""
        self._steps += 1
        self._show()

    def skip(self, steps: int) -> None:
        """Removes steps that an earlier start did or that are not needed; they do not count for the time left."""
        self._total -= steps
        self._show()

    def __rich__(self) -> Group:
        """The live display: the bar and one line for each stage."""
        return Group(self._bar, *(Text(f"  {line}", style="dim") for line in self._stages()))

    def count(self, name: str) -> None:
        """Shows one more of something, such as pairs."""
        self._counts[name] += 1

    def question_ended(self, failed: int) -> None:
        """Counts one more question that ended; `failed` is how many have failed so far."""
        self._ended += 1
        self._failed = failed
        self._show()

    def note(self, text: str) -> None:
        """Prints a line."""
        if self._live:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _show(self) -> None:
        if self._live:
            self._bar.update(self._task, total=self._total, completed=self._steps, state=self._state())

    def _print_lines(self) -> None:
        """Runs in a thread: a local model may block the event loop for minutes."""
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
        named = [f"{number} {name}" for name, number in sorted(self._counts.items())]
        ended = f"{self._ended}/{self._questions} {self._name}"
        return ", ".join([ended, *named, f"{rate:.0f} tokens/s", f"{self._failed} failed"])

    def _new_tokens(self) -> int:
        return sum(totals.completion_tokens for totals in list(self._ledger.stages.values()))

    def _stages(self) -> list[str]:
        """Calls, tokens and cost of each stage, and the batches under way."""
        stages = [f"{stage}: {totals_line(totals)}" for stage, totals in list(self._ledger.stages.items())]
        return [*stages, *list(self._ledger.batches.values())]


def counted(things: Iterator[T], done: str) -> Iterator[T]:
    """Yields `things`, and prints their number from time to time; `done` says what they are."""
    printed = time.monotonic()
    for number, thing in enumerate(things, 1):
        yield thing
        if time.monotonic() - printed > _SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            print(f"{number:,} {done}", file=sys.stderr, flush=True)


def totals_line(totals: StageTotals) -> str:
    """A stage's calls and tokens as text, with cached and truncated shares and the cost where they are known."""
    line = f"{totals.calls:,} calls, {totals.prompt_tokens:,} prompt + {totals.completion_tokens:,} new tokens"
    if totals.cached_tokens:
        line += f", {totals.cached_tokens / totals.prompt_tokens:.0%} of the prompt cached"
    if totals.truncated:
        line += f", {totals.truncated:,} replies truncated at max_new_tokens"
    return line + (f", cost {totals.cost:,.4f}" if totals.cost else "")
