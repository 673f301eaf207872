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
from typing import Any, TypeVar

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
        self._skipped = 0
        self._spares = False
        self._ledger = ledger
        self._began = time.monotonic()
        self._ended_all = threading.Event()
        self._carried = (0, 0)
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
            self._task = self._bar.add_task(title, total=steps, state="")
            self._live = Live(self, console=console, refresh_per_second=4)

    def __enter__(self) -> "Progress":
        self._carried = self._tokens()  # of earlier starts; they do not count for the speed
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
        self._skipped += steps
        self._total -= steps
        self._show()

    def spare(self, steps: int) -> None:
        """Removes steps of a question that needed fewer; from then on, the other questions may need fewer, too."""
        self._spares = True
        self._total -= steps
        self._show()

    def __rich__(self) -> Group:
        """The live display: the bar and one line for each stage."""
        return Group(self._bar, *(Text(f"  {line}", style="dim") for line in self._stages()))

    def count(self, name: str, number: int = 1) -> None:
        """Shows one or more further ones of something, such as pairs."""
        self._counts[name] += number

    def questions_ended(self, ended: int, failed: int) -> None:
        """Shows how many questions have ended so far, and how many of them have failed."""
        self._ended = ended
        self._failed = failed
        self._show()

    def note(self, text: str) -> None:
        """Prints a line."""
        if self._live:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def snapshot(self) -> dict[str, Any]:
        """The numbers of this moment as plain data; see progress.json in the docs."""
        seconds, (prompt, new) = self._seconds(), self._tokens_made()
        return {
            "work": self._title,
            "items": self._name,
            "questions": self._questions,
            "ended": self._ended,
            "failed": self._failed,
            "outcomes": dict(self._counts),
            "steps": self._steps,
            "total": self._steps + self._steps_left(),
            "seconds": round(seconds, 1),
            "seconds_left": self._seconds_left(),
            "new_tokens": new,
            "speed": {"new_tokens_per_second": new / seconds, "prompt_tokens_per_second": prompt / seconds},
            "calls": {stage: totals._asdict() for stage, totals in list(self._ledger.stages.items())},
            "cost": self._ledger.spent,
            "batches": list(self._ledger.batches.values()),
        }

    def _show(self) -> None:
        if self._live:
            total = self._steps + self._steps_left()
            self._bar.update(self._task, total=total, completed=self._steps, state=self._state())

    def _print_lines(self) -> None:
        """Runs in a thread: a local model may block the event loop for minutes."""
        while not self._ended_all.wait(_SECONDS_BETWEEN_LINES):
            self._print_line()

    def _print_line(self) -> None:
        left = self._seconds_left()
        print(
            f"{self._title}: {self._steps}/{self._steps + self._steps_left()} steps, {self._state()}, "
            f"{self._seconds():.0f} s" + ("" if left is None else f", about {left:.0f} s left"),
            *self._stages(),
            sep="\n    ",
            file=sys.stderr,
            flush=True,
        )

    def _state(self) -> str:
        rate = self._tokens_made()[1] / self._seconds()
        named = [f"{number} {name}" for name, number in sorted(self._counts.items())]
        ended = f"{self._ended}/{self._questions} {self._name}"
        return ", ".join([ended, *named, f"{rate:.0f} tokens/s", f"{self._failed} failed"])

    def _seconds(self) -> float:
        """Since the start, never 0."""
        return max(time.monotonic() - self._began, 1e-9)

    def _steps_left(self) -> int:
        """The expected steps. Where questions end early, each is expected to need those of all questions so far,
        divided by the questions that have ended: the questions that end first are the short ones."""
        left = self._total - self._steps
        if not self._spares:
            return left
        done, waiting = self._steps + self._skipped, self._questions - self._ended
        return min(left, waiting * done // max(self._ended, 1))

    def _seconds_left(self) -> float | None:
        """None before the first step, unless no step is left."""
        left = self._steps_left()
        return self._seconds() / self._steps * left if self._steps else None if left else 0.0

    def _tokens(self) -> tuple[int, int]:
        """Prompt tokens and new tokens of all starts."""
        stages = list(self._ledger.stages.values())
        return sum(stage.prompt_tokens for stage in stages), sum(stage.completion_tokens for stage in stages)

    def _tokens_made(self) -> tuple[int, int]:
        """Prompt tokens and new tokens of this start."""
        (prompt, new), (prompt_before, new_before) = self._tokens(), self._carried
        return prompt - prompt_before, new - new_before

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
