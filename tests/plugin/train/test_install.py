"""Installing the trainers: twice as once, and never a stock trainer without a reported reason."""

import inspect
import sys
from types import ModuleType

import pytest
import torch
from test_train import history, recipe, stock_trainers  # noqa: F401  recipe is a fixture

from lf_longpo.errors import UserError
from lf_longpo.plugin.train.console_output import Screen
from lf_longpo.plugin.train.install import install, prepare
from lf_longpo.plugin.train.options import TrainOptions
from lf_longpo.plugin.train.trainer_choice import reason_for_other_workflow
from lf_longpo.plugin.train.worker import Failure, run


@pytest.fixture
def hoisted(monkeypatch):
    """LLaMA-Factory with the import of its DPO trainer at the top of the workflow, not inside `run_dpo`."""
    import llamafactory.train.dpo as package
    from llamafactory.train import tuner
    from llamafactory.train.dpo import workflow

    line = "from .trainer import CustomDPOTrainer\n"
    source = inspect.getsource(workflow)
    assert source.count(f"    {line}") == 1
    changed = ModuleType(workflow.__name__)
    changed.__package__ = workflow.__package__
    exec(compile(line + source.replace(f"    {line}", ""), "hoisted", "exec"), vars(changed))
    monkeypatch.setitem(sys.modules, workflow.__name__, changed)
    monkeypatch.setattr(package, "workflow", changed)
    monkeypatch.setattr(tuner, "run_dpo", changed.run_dpo)


def test_a_stock_trainer_without_a_reason_is_refused(recipe, tmp_path, hoisted):  # noqa: F811
    """Any process of a run: one, those of torchrun, and the actors of Ray get the same guard."""
    settings = recipe("glm4", max_steps=1, output_dir=str(tmp_path / "out"))
    with stock_trainers():
        failure = run(settings, TrainOptions(), Screen(None))
    assert failure is not None and failure.exit_code == 2
    assert failure.message.startswith("the trainer of longpo train is not in use with LLaMA-Factory 0.")
    assert failure.message.endswith("run `pip install llamafactory==0.9.5`, or train with longpo train --stock")
    assert not (tmp_path / "out/trainer_state.json").exists()


def test_ray_actors_have_the_guard(recipe, monkeypatch):  # noqa: F811
    from llamafactory.train import tuner

    from lf_longpo.plugin.train.ray_worker import RayWorker
    from lf_longpo.plugin.train.trainer_guard import TrainerGuard

    given = []
    monkeypatch.setattr(tuner.Worker, "_training_function", lambda self, config: given.append(config))
    with stock_trainers():
        RayWorker._training_function(object.__new__(RayWorker), {"args": recipe("glm4"), "callbacks": []})
    assert any(isinstance(callback, TrainerGuard) for callback in given[0]["callbacks"])


def test_a_refusal_in_a_ray_actor_is_one_line(monkeypatch):
    from ray.exceptions import RayTaskError

    from lf_longpo.plugin.train import worker

    def refuse(*_):
        raise RayTaskError("train", "Traceback ...", UserError("the trainer is not in use")).as_instanceof_cause()

    monkeypatch.setattr(worker, "work", refuse)
    assert run({}, TrainOptions(), Screen(None)) == Failure("the trainer is not in use", 2)


OTHERS = {
    "another stage": ({"stage": "kto"}, {}, "only the stages dpo and sft are accelerated, not kto"),
    "another trainer of SFT": ({"use_hyper_parallel": True}, {}, "use_hyper_parallel has its own trainer"),
    "Megatron": ({"stage": "dpo"}, {"USE_MCA": "1"}, "Megatron trains (USE_MCA)"),
    "DPO": ({"stage": "dpo", "use_hyper_parallel": True}, {"USE_MCA": "0"}, None),
}


@pytest.mark.parametrize(("settings", "environment", "reason"), OTHERS.values(), ids=OTHERS)
def test_a_workflow_without_our_trainers_is_reported(monkeypatch, settings, environment, reason):
    monkeypatch.delenv("USE_MCA", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert reason_for_other_workflow(settings) == reason
    notes = []
    with stock_trainers():
        guard = prepare(settings | {"use_cpu": True}, TrainOptions(), notes.append).guard
    assert guard.decided == (reason is not None)
    assert (f"plain LLaMA-Factory, since {reason}" in notes) == (reason is not None)


@pytest.mark.slow
def test_installing_twice_is_the_same(recipe, tmp_path):  # noqa: F811
    settings = recipe("glm4", max_steps=2)
    once = history(settings, tmp_path / "once", packed=True)
    notes = []
    with stock_trainers():
        install(TrainOptions(), notes.append)
        twice = history(settings, tmp_path / "twice", packed=True)
    assert notes == []  # the second installation's are printed
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in (once, twice)]
    assert losses[0] == losses[1] and len(losses[0]) == 2


@pytest.fixture
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    return LlamaForCausalLM(config).eval()


def test_packed_attention_and_tiles_can_be_used_twice(model):
    from lf_longpo.plugin.train.attention import no_mask, stock_kernel, use_packed_attention
    from lf_longpo.plugin.train.tiling import Tiles, tile_layers

    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    layer = model.model.layers[0]
    sizes = []
    layer.mlp.down_proj.register_forward_hook(lambda *passed: sizes.append(passed[2].shape[1]))
    for size in (6, 4):
        use_packed_attention(model)
        tile_layers(model, Tiles(size, size))
        assert (model.config._attn_implementation, stock_kernel(model)) == ("packed_sdpa", "sdpa")
    with torch.no_grad():
        row = {"input_ids": ids, "attention_mask": no_mask(ids.device), "segments": [[8, 4]]}
        found = model(**row, use_cache=False).logits
    torch.testing.assert_close(found, expected)
    assert sizes == [4, 4, 4]
    assert not hasattr(layer.forward.untiled, "untiled")
