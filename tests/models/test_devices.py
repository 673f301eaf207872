"""Where models in this process compute; GPUs are simulated."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sentence_transformers import SentenceTransformer

from lf_longpo.config import ChatConfig, EmbedderConfig
from lf_longpo.errors import UserError
from lf_longpo.models.cache import CallCache
from lf_longpo.models.devices import EMBEDDING_BYTES, pick_device, roomiest_device
from lf_longpo.models.embedders import make_embedder
from lf_longpo.models.ledger import Ledger
from lf_longpo.models.transformers_chat import TransformersChat

GB = 10**9


@pytest.fixture
def gpu(monkeypatch):
    """A function that simulates one GPU with so much free memory, or an error instead."""

    def simulate(free):
        def look():
            if isinstance(free, Exception):
                raise free
            return free, 80 * GB

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "mem_get_info", look)

    return simulate


def reports(capsys):
    """What was printed about embedders, next to the progress bars of loading."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("embedder")]


@pytest.mark.parametrize("free", [int(0.3 * GB), EMBEDDING_BYTES, torch.OutOfMemoryError("CUDA out of memory.\nMore")])
async def test_an_embedder_leaves_a_full_gpu_alone_and_a_line_says_so(gpu, capsys, free):
    gpu(free)
    embedder = make_embedder(EmbedderConfig(), CallCache(None), Ledger())
    assert (await embedder.embed("q", ["a lamp", "a tower"])).shape == (2, 384)
    assert embedder._model.device.type == "cpu"
    await embedder.close()
    (line,) = reports(capsys)
    why = "CUDA out of memory." if isinstance(free, Exception) else f"{free / GB:.1f} GB are free there"
    assert line == f"embedder minilm: runs on cpu and not on the GPU ({why}, 2.1 GB are needed)"


async def test_an_embedder_takes_a_gpu_that_has_room(gpu, capsys, monkeypatch):
    gpu(60 * GB)
    moved = []
    monkeypatch.setattr(SentenceTransformer, "to", lambda self, device: moved.append(device) or self)
    embedder = make_embedder(EmbedderConfig(), CallCache(None), Ledger())
    await embedder.start()
    await embedder.close()
    assert "cuda" in moved
    assert reports(capsys) == ["embedder minilm: runs on cuda (60.0 GB are free there, 2.1 GB are needed)"]


def test_a_gpu_with_exactly_enough_memory_is_enough(gpu):
    for free, device in ((GB + EMBEDDING_BYTES, "cuda"), (GB + EMBEDDING_BYTES - 1, "cpu")):
        gpu(free)
        assert roomiest_device("e", GB) == device


async def test_a_device_that_is_named_is_taken_without_a_look_at_its_memory(gpu, capsys):
    gpu(RuntimeError("nobody asked"))
    embedder = make_embedder(EmbedderConfig(device="cpu"), CallCache(None), Ledger())
    await embedder.start()
    assert embedder._model.device.type == "cpu" and not reports(capsys)
    await embedder.close()


def test_devices_that_do_not_exist_are_named(gpu):
    gpu(GB)
    assert (pick_device("auto", "device"), pick_device("cuda:0", "device")) == ("cuda", "cuda:0")
    with pytest.raises(
        UserError, match=r"^device: PyTorch finds 1 CUDA devices here and no 'cuda:1'; set device to auto"
    ):
        pick_device("cuda:1", "device")
    if not torch.backends.mps.is_available():
        with pytest.raises(UserError, match="'mps'"):
            pick_device("mps", "embedder.device")


def test_devices_and_formats_belong_to_models_of_this_process():
    for kind, other, own in ((ChatConfig, "vllm", "transformers"), (EmbedderConfig, "openai", "sentence-transformers")):
        for setting in ({"device": "cpu"}, {"dtype": "float32"}):
            assert kind(model="m", backend=own, **setting)
            with pytest.raises(ValidationError, match=f"{next(iter(setting))} goes with backend: {own}"):
                kind(model="m", backend=other, **setting)
    with pytest.raises(ValidationError, match="a device is auto, cpu, cuda, cuda:N or mps"):
        ChatConfig(model="m", backend="transformers", device="gpu")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
async def test_models_compute_in_the_format_that_is_set(models, dtype):
    folder = str(models("glm4"))
    chat = TransformersChat(ChatConfig(backend="transformers", model=folder, device="cpu", dtype=dtype))
    chat._load()
    assert chat._model.dtype == getattr(torch, dtype)
    embedder = make_embedder(EmbedderConfig(dtype=dtype, device="cpu"), CallCache(None), Ledger())
    vectors = await embedder.embed("q", ["a lamp", "a tower"])
    assert embedder._model.dtype == getattr(torch, dtype) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    await embedder.close()
