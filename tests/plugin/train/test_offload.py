"""Checkpoints in the CPU's memory: the same gradients, and copies in the right order."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lf_longpo.plugin.train import offload
from lf_longpo.plugin.train.offload import OffloadedCheckpoint


def gradients(run):
    """Gradients of three layers with dropout."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Tanh()) for _ in range(3)]
    hidden = torch.randn(4, 6, requires_grad=True)
    result = hidden
    for layer in layers:
        result = run(layer, result)
    result.square().sum().backward()
    return [hidden.grad, *(parameter.grad for layer in layers for parameter in layer.parameters())]


def plain(layer, hidden):
    return checkpoint(layer, hidden, use_reentrant=False)


def test_gradients_are_those_of_pytorchs_checkpointing():
    for expected, found in zip(gradients(plain), gradients(OffloadedCheckpoint()), strict=True):
        assert torch.equal(expected, found)


def test_nothing_is_kept_without_gradients():
    saved = OffloadedCheckpoint()
    with torch.no_grad():
        result = saved(nn.Linear(2, 2), torch.ones(1, 2))
    assert not result.requires_grad and saved._last() is None


class Stream:
    """Stands for a CUDA stream, which this machine lacks; copies are done at once."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for {event}")

    def record_event(self):
        self.log.append("copied")
        return "copied"


@pytest.fixture
def log(monkeypatch):
    """What the streams did."""
    log = []
    main, side, empty = Stream("main", log), Stream("side", log), torch.empty
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch, "empty", lambda *sizes, pin_memory=False, **options: empty(*sizes, **options))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: log.append(f"kept for {stream.name}"))
    # PyTorch saves an empty tensor on the CPU with each checkpoint.
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: tensor.numel() > 0))
    monkeypatch.setattr(offload, "_PIECE", 64)  # 16 numbers
    return log


def test_a_copy_waits_for_the_layer_and_the_layer_for_the_copy(log):
    expected = gradients(plain)
    log.clear()
    for gradient, found in zip(expected, gradients(OffloadedCheckpoint()), strict=True):
        assert torch.equal(gradient, found)
    kept = ["side waits for main", "kept for side", "kept for side"]  # 24 numbers, in two pieces
    fetched = ["side waits for main", "kept for side", "copied"]
    # The last layer's input is fetched when it is needed; the others while the layer after them computes.
    assert log == kept * 3 + (fetched + ["main waits for copied"]) + fetched + ["main waits for copied"] + fetched + [
        "main waits for copied"
    ]
