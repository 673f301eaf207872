"""What makes a run fit: the least number of processes a row, and the cheapest changes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from lf_longpo.plugin.check.deepspeed import Zero, fsdp_of
from lf_longpo.plugin.check.examples import Lengths
from lf_longpo.plugin.check.memory_changes import PackedRun, cheapest_changes, least_parallel
from lf_longpo.plugin.check.memory_estimate import GIB, Machine, Model
from lf_longpo.plugin.recipe import Arguments

LLAMA_8B = Model(
    parameters=8_030_261_248, trained=20_971_520, layers=32, hidden=4096, feed_forward=14336, attention=4096,
    key_value=1024, heads=32, vocabulary=128256, stored=2, compute=2,
)  # fmt: skip
FULL = replace(LLAMA_8B, trained=8_030_261_248)


def packed_run(tokens, gpus, model=LLAMA_8B, zero=None, **settings):
    """A run on GPUs of 80 GiB, on one pair of prompt and responses of 1024 tokens."""
    arguments = {"quantization_bit": None, "use_unsloth_gc": False, "disable_gradient_checkpointing": False}
    tuning = "lora" if model is LLAMA_8B else "full"
    run = Arguments(
        model=SimpleNamespace(**arguments | settings),
        data=SimpleNamespace(),
        training=SimpleNamespace(use_cpu=False, per_device_train_batch_size=1, gradient_accumulation_steps=2),
        finetuning=SimpleNamespace(finetuning_type=tuning, use_ref_model=True, ref_model=None),
    )
    return PackedRun(model, run, zero, Machine(gpus, 80 * GIB, ""), [Lengths(tokens - 1024, (1024, 1024))], batch=1)


def test_the_least_number_of_processes_divides_the_gpus():
    assert least_parallel(packed_run(65536, 8)) == 1
    assert least_parallel(packed_run(262144, 8)) == 2
    assert least_parallel(packed_run(262144, 9)) == 3
    assert least_parallel(packed_run(262144, 1)) is None


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        (packed_run(65536, 1, disable_gradient_checkpointing=True), ["remove disable_gradient_checkpointing"]),
        (packed_run(262144, 1), ["set use_unsloth_gc: true"]),
        (packed_run(262144, 8, use_unsloth_gc=True, zero=Zero(2)), []),
        (packed_run(524288, 2, zero=Zero(2)), ["set use_unsloth_gc: true", "add --sequence-parallel 2"]),
        (packed_run(524288, 1), []),
        (packed_run(32768, 8, FULL), ["set deepspeed: yaml/deepspeed/ds_z3.json"]),
    ],
    ids=["checkpointing", "offload", "fits", "both", "none", "stage"],
)
def test_the_cheapest_changes(run, changes):
    found = [] if run.fits() else cheapest_changes(run)
    assert [change.what for change in found] == changes
    if found:
        assert found[-1].run.fits()
        totals = [run.estimate().total, *(change.run.estimate().total for change in found)]
        assert totals == sorted(totals, reverse=True)


def test_a_row_that_is_split_needs_less():
    whole, *split = (replace(packed_run(262144, 8), parallel=parallel).estimate() for parallel in (1, 2, 4, 8))
    totals = [estimate.total for estimate in (whole, *split)]
    assert totals == sorted(totals, reverse=True)
    for parallel, (parts, _) in zip((2, 4, 8), split, strict=True):
        assert parts["activations"] == whole.parts["activations"] / parallel
        assert (parts["exchange"] > 0) == (parallel < 8)  # an eighth is computed without tiles
        assert parts["weights"] == whole.parts["weights"]


def test_fsdp_splits_everything_and_keeps_float32():
    run = packed_run(8192, 8, FULL)
    parts = replace(run, zero=fsdp_of({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"})).estimate().parts
    gathered = 2 * (2 * FULL.parameters / 32 + 2 * FULL.vocabulary * FULL.hidden)
    assert parts["weights"] == 4 * FULL.parameters / 8 + gathered
    assert (parts["gradients"], parts["optimizer"]) == (4 * FULL.parameters / 8, 8 * FULL.parameters / 8)
    offloaded = {"ACCELERATE_USE_FSDP": "True", "FSDP_OFFLOAD_PARAMS": "true"}
    assert replace(run, zero=fsdp_of(offloaded)).estimate().parts["optimizer"] == 0
    assert fsdp_of({}) is None
