"""Layers in tiles: the values and gradients of whole rows, for every architecture of the recipes."""

from types import SimpleNamespace

import pytest
import torch
from recipes import FAMILIES
from transformers import AutoModelForCausalLM

from lf_longpo.plugin.train.attention import use_packed_attention
from lf_longpo.plugin.train.offload import OffloadedCheckpoint
from lf_longpo.plugin.train.packed_forward import token_values
from lf_longpo.plugin.train.packing import IGNORE, pack
from lf_longpo.plugin.train.tiling import WHOLE, Tiles, bytes_at_work, in_small_tiles, tile_layers, tiles_for, tiles_of

CHECKPOINTING = {
    "none": lambda model: None,
    "reentrant": lambda model: model.gradient_checkpointing_enable({"use_reentrant": True}),
    "not reentrant": lambda model: model.gradient_checkpointing_enable({"use_reentrant": False}),
    "offloaded": lambda model: model._set_gradient_checkpointing(True, OffloadedCheckpoint()),
}


@pytest.fixture(scope="module")
def row():
    """Two pairs in one row, of 41 tokens."""
    torch.manual_seed(1)

    def pair(prompt, *responses):
        ids = torch.randint(5, 60, (prompt,)).tolist()
        answers = [torch.randint(5, 60, (length,)).tolist() for length in responses]
        return [(ids + answer, [IGNORE] * prompt + answer) for answer in answers]

    return pack([pair(13, 5, 4), pair(9, 3, 7)])


def gradients(folder, row, tiles, checkpointing):
    """Log-probabilities and gradients of all parameters in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).train()
    CHECKPOINTING[checkpointing](model)
    model.enable_input_require_grads()
    use_packed_attention(model)
    tile_layers(model, tiles)
    logps = token_values(model, row).logps
    (logps * torch.linspace(-1, 2, len(logps), dtype=torch.float64)).sum().backward()
    return {"logps": logps.detach()} | {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_tiles_have_the_gradients_of_whole_rows(models, row, family):
    folder = models(family, small_tokenizer=True)
    expected = gradients(folder, row, WHOLE, "none")
    for size, checkpointing in ((7, "none"), (16, "reentrant"), (40, "not reentrant"), (5, "offloaded")):
        found = gradients(folder, row, Tiles(size, size), checkpointing)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=f"{name}, {size}")


def test_rows_up_to_the_longest_are_computed_whole(models, row):
    model = AutoModelForCausalLM.from_pretrained(models("llama3", small_tokenizer=True))
    sizes = []
    model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *passed: sizes.append(passed[2].shape[1]))
    use_packed_attention(model)
    with torch.no_grad():
        for tiles in (WHOLE, Tiles(41, 8), Tiles(40, 16)):
            tile_layers(model, tiles)
            token_values(model, row)
        with in_small_tiles(30):
            token_values(model, row)
    assert sizes == [41, 41, 16, 16, 9, 30, 11]


def test_a_tile_takes_an_eighth_of_what_a_layer_may_take():
    tiles = tiles_for(at_work=1000, memory=80_000_000)
    assert tiles == Tiles(16_000, 2_000)
    assert tiles_for(at_work=1000, memory=1000).size == 1


def test_tiles_are_those_of_the_device_and_the_format_that_fsdp_gives_the_model_later(models, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(models("llama3", small_tokenizer=True), dtype=torch.float32)
    config, memory = model.config, 10_000_000
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory))

    def tiles(device, precision):
        return tiles_of(model, SimpleNamespace(device=torch.device(device), mixed_precision=precision))

    def expected(itemsize):
        key_value = config.num_key_value_heads * config.head_dim
        return tiles_for(bytes_at_work(config.hidden_size, key_value, config.intermediate_size, itemsize), memory)

    assert tiles("cpu", "bf16") == WHOLE
    assert tiles("cuda", "bf16") == expected(2) != tiles("cuda", "no") == expected(4)
