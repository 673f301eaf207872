"""Changes of a run that lower its memory, and the cheapest of them with which it fits."""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

from lf_longpo.plugin.check.deepspeed import Zero
from lf_longpo.plugin.check.examples import Lengths
from lf_longpo.plugin.check.memory_estimate import (
    Estimate,
    Machine,
    Model,
    Rows,
    estimate,
    longest_step,
    packed_rows,
)
from lf_longpo.plugin.recipe import Arguments


@dataclass(frozen=True)
class PackedRun:
    """A run of `longpo train`, as far as its memory depends on it.

    Attributes:
        model: sizes.
        run: the recipe.
        zero: DeepSpeed's or FSDP's splitting; None without them.
        machine: the devices.
        lengths: of the prompts with their responses.
        batch: number of rows at the same time.
        parallel: number of processes over which each row is split.
    """

    model: Model
    run: Arguments
    zero: Zero | None
    machine: Machine
    lengths: Sequence[Lengths]
    batch: int
    parallel: int = 1

    def rows(self) -> Rows:
        """The rows of the longest step."""
        return longest_step(packed_rows(lengths, self.batch) for lengths in self.lengths)

    def estimate(self) -> Estimate:
        """The peak of the longest step."""
        return estimate(self.model, self.run, self.zero, self.machine, self.rows(), packed=True, parallel=self.parallel)

    def fits(self) -> bool:
        """Whether the peak is at most the memory of a device."""
        return self.estimate().total <= self.machine.memory


class Change(NamedTuple):
    """A change of a run.

    Attributes:
        what: what to do, in the imperative.
        cost: what it costs, in words.
        run: after the change.
    """

    what: str
    cost: str
    run: PackedRun


def least_parallel(run: PackedRun) -> int | None:
    """The least number of processes a row over which the longest example fits; None where no number is enough.

    Args:
        run: its `parallel` is not read; the result divides its number of devices.
    """
    numbers = (number for number in range(1, run.machine.gpus + 1) if run.machine.gpus % number == 0)
    return next((number for number in numbers if replace(run, parallel=number).fits()), None)


def cheapest_changes(run: PackedRun) -> list[Change]:
    """The fewest and cheapest changes after which a run fits; empty where none are known.

    A single change is preferred to several, and an earlier one of `_CHANGES` to a later one.
    """
    for count in range(1, len(_CHANGES) + 1):
        for chosen in combinations(_CHANGES, count):
            changes = _applied(run, chosen)
            if changes and changes[-1].run.fits():
                return changes
    return []


def _applied(run: PackedRun, chosen: Iterable[Callable[[PackedRun], Change | None]]) -> list[Change]:
    """The changes one after the other; empty where one of them has no effect on the run."""
    changes: list[Change] = []
    for make in chosen:
        change = make(run)
        if change is None:
            return []
        changes.append(change)
        run = change.run
    return changes


def _with_checkpointing(run: PackedRun) -> Change | None:
    if not run.run.model.disable_gradient_checkpointing:
        return None
    changed = _with_settings(run, disable_gradient_checkpointing=False)
    return Change("remove disable_gradient_checkpointing", "one more forward pass", changed)


def _with_offload(run: PackedRun) -> Change | None:
    arguments = run.run.model
    if arguments.use_unsloth_gc or arguments.disable_gradient_checkpointing or run.run.training.use_cpu:
        return None
    rows = run.rows()
    size = rows.count * rows.length / run.parallel * run.model.layers * run.model.hidden * run.model.compute
    cost = f"{size / (1 << 30):.0f} GiB of CPU memory for each GPU"
    return Change("set use_unsloth_gc: true", cost, _with_settings(run, use_unsloth_gc=True))


def _with_zero3(run: PackedRun) -> Change | None:
    if run.machine.gpus == 1 or (run.zero is not None and run.zero.stage == 3):
        return None
    changed = replace(run, zero=(run.zero or Zero())._replace(stage=3))
    return Change("set deepspeed: yaml/deepspeed/ds_z3.json", "weights are sent in each pass", changed)


def _with_parallel(run: PackedRun) -> Change | None:
    parallel = least_parallel(run) or run.machine.gpus
    if parallel <= run.parallel:
        return None
    cost = f"1/{parallel} of the pairs a step"
    return Change(f"add --sequence-parallel {parallel}", cost, replace(run, parallel=parallel))


def _with_qlora(run: PackedRun) -> Change | None:
    if run.run.finetuning.finetuning_type != "lora" or run.run.model.quantization_bit is not None:
        return None
    changed = _with_settings(run, quantization_bit=4)
    return Change("set quantization_bit: 4", "frozen weights are rounded to 4 bits", changed)


def _with_states_on_cpu(run: PackedRun) -> Change | None:
    if run.run.training.use_cpu or (run.zero is not None and (run.zero.fsdp or run.zero.weights_on_cpu)):
        return None
    what = "set deepspeed: yaml/deepspeed/ds_z3_offload.json"
    return Change(what, "the CPU computes the optimizer's step", replace(run, zero=Zero(3, True, True)))


_CHANGES = (_with_checkpointing, _with_offload, _with_zero3, _with_parallel, _with_qlora, _with_states_on_cpu)
"""From the cheapest on."""


def _with_settings(run: PackedRun, **settings: Any) -> PackedRun:
    """The run with other model arguments."""
    model = copy(run.run.model)
    for name, value in settings.items():
        setattr(model, name, value)
    return replace(run, run=run.run._replace(model=model))
