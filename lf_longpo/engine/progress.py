"""The progress of a run: two live lines in a terminal, plain lines elsewhere.

Progress is measured in steps (calls or rounds), not in questions: with many questions in flight, the first question
ends late, and a bar of questions would not move for hours.
"""

import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from lf_longpo.engine.failures import Failures
from lf_longpo.models.cache import StageTotals
from lf_longpo.models.ledger import Ledger

_SECONDS_BETWEEN_LINES = 10.0
# Columns of the bar at most and at least, and of a failure at least: a shorter part of it says nothing.
_BAR, _LEAST_BAR, _LEAST_FAILURE = 40, 6, 12
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
        self._spared = 0
        self._ledger = ledger
        self._began = time.monotonic()
        self._ended_all = threading.Event()
        self._carried = (0, 0)
        self._failures: Failures | None = None
        self._live: Live | None = None
        if sys.stderr.isatty():
            self._live = Live(self, console=Console(stderr=True), refresh_per_second=4)

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

    def show_failures(self, failures: Failures) -> None:
        """Shows the most frequent of these failures from now on."""
        self._failures = failures

    def step(self) -> None:
        """Counts one more finished step."""
        self._steps += 1

    def skip(self, steps: int) -> None:
        """Removes steps that an earlier start did or that are not needed; they do not count for the time left."""
        self._skipped += steps
        self._total -= steps

    def spare(self, steps: int) -> None:
        """Removes steps of a question that needed fewer; from then on, the other questions may need fewer, too."""
        self._spared += steps
        self._total -= steps

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The live display: two lines of at most the terminal's width."""
        # A character in the last column would move the cursor to another line in some terminals.
        width = options.max_width - 1
        left = self._seconds_left()
        total = self._expected_total()
        steps, clocks = f"{self._steps:,}/{total:,}", f"{_clock(self._seconds())} left {_clock(left)}"
        head, tail = f"{self._title} ", f" {steps} steps {clocks}"
        bar = min(_BAR, width - cell_len(head + tail))
        if bar >= _LEAST_BAR:
            yield Text(head, end="")
            yield ProgressBar(max(total, 1), self._steps if total else 1, width=bar)
            yield Text(tail)
        else:
            yield Text(_shortened(f"{steps} {clocks}", width))
        yield Text(self._second_line(width), style="dim")

    def count(self, name: str, number: int = 1) -> None:
        """Shows one or more further ones of something, such as pairs."""
        self._counts[name] += number

    def questions_ended(self, ended: int, failed: int) -> None:
        """Shows how many questions have ended so far, and how many of them have failed."""
        self._ended = ended
        self._failed = failed

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
            "total": self._expected_total(),
            "spared": self._spared,
            "seconds": round(seconds, 1),
            "seconds_left": self._seconds_left(),
            "new_tokens": new,
            "speed": {"new_tokens_per_second": new / seconds, "prompt_tokens_per_second": prompt / seconds},
            "calls": {stage: totals._asdict() for stage, totals in list(self._ledger.stages.items())},
            "cost": self._ledger.spent,
            "batches": list(self._ledger.batches.values()),
        }

    def _print_lines(self) -> None:
        """Runs in a thread: a local model may block the event loop for minutes."""
        while not self._ended_all.wait(_SECONDS_BETWEEN_LINES):
            self._print_line()

    def _print_line(self) -> None:
        left, (failure, times) = self._seconds_left(), self._failure()
        print(
            f"{self._title}: {self._steps}/{self._expected_total()} steps, "
            f"{', '.join([*self._kinds(), *self._pace()])}, {self._seconds():.0f} s"
            + ("" if left is None else f", about {left:.0f} s left"),
            *self._stages(),
            *([f"most frequent failure, {times:,} times: {failure}"] if times else []),
            sep="\n    ",
            file=sys.stderr,
            flush=True,
        )

    def _second_line(self, width: int) -> str:
        """Counts, speed, retries and the most frequent failure. If they do not fit, the least useful is left out."""
        questions, *kinds = self._kinds()
        speed, *rest = self._pace()
        # A batch is shown only if there is no failure: the failure needs an action.
        note = self._failure()[0] or next(iter(self._ledger.batches.values()), "")
        first = 2 if self._failed else 1  # failures, and the most frequent result
        shown = {questions, speed}
        for part in (*kinds[:first], *rest, *kinds[first:]):
            line = ", ".join(text for text in (questions, *kinds, speed, *rest) if text in shown | {part})
            reserved = min(cell_len(note), _LEAST_FAILURE) + 2 if note and part in kinds[first:] else 0
            if cell_len(line) + reserved <= width:
                shown.add(part)
            elif part in kinds[first:]:
                break  # rarer results without this one would mislead
        line = ", ".join(text for text in (questions, *kinds, speed, *rest) if text in shown)
        free = width - cell_len(line) - len("; ")
        if note and free >= min(cell_len(note), _LEAST_FAILURE):
            line = f"{line}; {_shortened(note, free)}"
        return _shortened(line, width)

    def _kinds(self) -> list[str]:
        """The questions by kind of result, the most frequent first after the failed ones."""
        failed = [f"{self._failed:,} failed"] if self._failed else []
        return [
            f"{self._ended:,}/{self._questions:,} {self._name}",
            *failed,
            *(f"{number:,} {name}" for name, number in self._counts.most_common()),
        ]

    def _pace(self) -> list[str]:
        parts = [f"{self._tokens_made()[1] / self._seconds():,.0f} tokens/s"]
        if self._ledger.retries:
            parts.append(f"{self._ledger.retries:,} retries")
        return [*parts, f"cost {self._ledger.spent:,.2f}"] if self._ledger.spent else parts

    def _failure(self) -> tuple[str, int]:
        """The most frequent failure in one line, and its number."""
        reason, times = self._failures.most_frequent() if self._failures else ("", 0)
        # Reasons hold text of servers: control characters would move the cursor. An address is known and long.
        reason = re.sub(r"https?://\S+", "", reason)
        return " ".join("".join(letter if letter.isprintable() else " " for letter in reason).split()), times

    def _seconds(self) -> float:
        """Since the start, never 0."""
        return max(time.monotonic() - self._began, 1e-9)

    def _expected_total(self) -> int:
        """The steps of all questions together, without skipped and spared ones.

        Where questions end early, each is expected to need the steps of all questions so far, divided by the questions
        that have ended: the questions that end first are the short ones.
        """
        if not self._spared:
            return self._total
        done, waiting = self._steps + self._skipped, self._questions - self._ended
        return min(self._total, self._steps + waiting * done // max(self._ended, 1))

    def _seconds_left(self) -> float | None:
        """None before the first step, unless no step is left."""
        left = self._expected_total() - self._steps
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


def _clock(seconds: float | None) -> str:
    """Hours, minutes and seconds: `0:12:34`; `?` if they are unknown."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _shortened(text: str, width: int) -> str:
    """A text of at most `width` columns; wide characters take two."""
    return text if cell_len(text) <= width else f"{set_cell_size(text, max(width - 1, 0)).rstrip()}…"
