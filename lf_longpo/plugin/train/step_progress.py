"""Progress of a training, step by step: a progress bar in a terminal, lines elsewhere."""

import resource
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from transformers import TrainerCallback

from lf_longpo.plugin.train.console_output import Screen

_GIB = 1 << 30
# Without a terminal, a step gets a line if its figures are logged, or if the last line is older than this.
_SECONDS_BETWEEN_LINES = 2.0
# LLaMA-Factory's names of figures, and their text.
_FIGURES = {"loss": "loss {:.4f}", "rewards/margins": "margin {:+.3f}", "rewards/accuracies": "accuracy {:.2f}"}


class StepProgress(TrainerCallback):
    """Reports every step on the screen.

    Args:
        screen: to print on.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._bar: Progress | None = None
        self._figures: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        self._began = self._shown = time.monotonic()
        self._first = state.global_step  # not 0 in a resumed run
        # Processes that share rows get the same batches; only the loader counts them once.
        alone = args.train_batch_size * args.world_size
        batch = getattr(train_dataloader, "total_batch_size", alone) * args.gradient_accumulation_steps
        resumed = f", resumed at step {state.global_step}" if state.global_step else ""
        unit = "prompts" if getattr(getattr(train_dataloader, "dataset", None), "shared", False) else "examples"
        self._screen.note(f"training: {state.max_steps} steps of {batch} {unit}{resumed}")
        if self._screen.out is not None and self._screen.out.isatty():
            columns = (
                TextColumn("step {task.completed:.0f}/{task.total}"),
                BarColumn(24),
                TextColumn("{task.fields[line]}"),
            )
            self._bar = Progress(*columns, console=Console(file=self._screen.out, highlight=False))
            self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step, line="first step")
            self._bar.start()

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar:
            self._bar.advance(self._task, 1 / args.gradient_accumulation_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar:
            self._bar.update(self._task, completed=state.global_step, line=self._line(state))
        elif not control.should_log and time.monotonic() - self._shown >= _SECONDS_BETWEEN_LINES:
            self._print(state, [])

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:  # an evaluation, or the summary at the end
            return
        self._figures = _formatted(logs)
        if self._bar:
            self._bar.update(self._task, line=self._line(state))
        else:
            self._print(state, self._figures)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        figures = _formatted({name.removeprefix("eval_"): value for name, value in (metrics or {}).items()})
        self._screen.note(f"evaluation at step {state.global_step}: {', '.join(figures)}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar:
            self._bar.stop()
        took = timedelta(seconds=int(time.monotonic() - self._began))
        self._screen.note(f"{state.global_step} steps done in {took}, peak memory {_peak() / _GIB:.1f} GiB")

    def _print(self, state: Any, figures: list[str]) -> None:
        self._shown = time.monotonic()
        if self._screen.out is not None:
            parts = [f"step {state.global_step}/{state.max_steps}:", ", ".join([*figures, self._speed(state)])]
            print(*parts, file=self._screen.out, flush=True)

    def _line(self, state: Any) -> str:
        return ", ".join([*self._figures, self._speed(state)])

    def _speed(self, state: Any) -> str:
        pace = (time.monotonic() - self._began) / max(1, state.global_step - self._first)
        left = timedelta(seconds=int(pace * (state.max_steps - state.global_step)))
        return f"{pace:.1f} s/step, {left} left, peak {_peak() / _GIB:.1f} GiB"


def _formatted(figures: Mapping[str, Any]) -> list[str]:
    return [text.format(figures[name]) for name, text in _FIGURES.items() if name in figures]


def _peak() -> int:
    """Peak memory in bytes: allocated on the GPU, or of the process where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024
