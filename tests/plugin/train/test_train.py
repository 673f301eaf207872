"""`longpo train` against plain LLaMA-Factory: the same losses, step by step."""

import json
import random
from contextlib import contextmanager

import pytest
import torch
from conftest import write_jsonl
from recipes import FAMILIES

WORDS = "lamp tower river stone light word north harbour seven blue".split()


@pytest.fixture
def recipe(tmp_path, models):
    """A recipe of a tiny model over twelve pairs of unequal lengths, as a function of what to change in it."""
    chance = random.Random(0)

    def text(least, most):
        return " ".join(chance.choice(WORDS) for _ in range(chance.randint(least, most)))

    rows = [{"prompt": text(20, 80), "chosen": text(3, 20), "rejected": text(3, 20)} for _ in range(12)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    columns = {column: column for column in rows[0]}
    info = {
        "pairs": {"file_name": "rows.jsonl", "ranking": True, "columns": columns},
        "answers": {"file_name": "rows.jsonl", "columns": {"prompt": "prompt", "response": "chosen"}},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))

    def make(family, **changes):
        return {
            "stage": "dpo",
            "do_train": True,
            "finetuning_type": "lora",
            "dataset": "answers" if changes.get("stage") == "sft" else "pairs",
            "template": "smollm2",
            "cutoff_len": 256,
            "model_name_or_path": str(models(family, small_tokenizer=True)),
            "dataset_dir": str(tmp_path),
            "report_to": "none",
            "logging_steps": 1,
            "save_strategy": "no",
            "max_steps": 4,
            "per_device_train_batch_size": 2,
            "learning_rate": 1.0e-3,
            "use_cpu": True,
            "pref_ftx": 0.1,
        } | changes

    return make


@contextmanager
def stock_trainers():
    """LLaMA-Factory as it is without our trainers, after the block again."""
    from llamafactory.model import loader
    from llamafactory.model.model_utils import checkpointing
    from llamafactory.train import tuner
    from llamafactory.train.dpo import trainer as dpo
    from llamafactory.train.dpo import workflow as dpo_workflow
    from llamafactory.train.sft import workflow as sft_workflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMAFACTORY_VERBOSITY", "WARN")
        for module, names in (
            (loader, ["load_config"]),
            (checkpointing, ["get_unsloth_gradient_checkpointing_func"]),
            (tuner, ["run_dpo"]),
            (dpo, ["CustomDPOTrainer"]),
            (dpo_workflow, ["create_ref_model", "get_dataset", "load_model"]),
            (sft_workflow, ["CustomSeq2SeqTrainer", "get_dataset", "load_model"]),
        ):
            for name in names:
                patch.setattr(module, name, getattr(module, name))
        yield patch


def history(settings, folder, packed):
    """The log of a run in this process, step by step."""
    from llamafactory.train.tuner import run_exp

    from lf_longpo.plugin.train.install import install
    from lf_longpo.plugin.train.options import TrainOptions

    with stock_trainers():
        run_exp(settings | {"output_dir": str(folder)}, callbacks=[install(TrainOptions())] if packed else [])
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def compare(settings, folder, tolerance=1e-5):
    """Trains both ways; every figure but speed and the mean logits must agree."""
    stock, ours = (history(settings, folder / name, name == "ours") for name in ("stock", "ours"))
    assert len(stock) == len(ours)
    compared = 0
    for expected, found in zip(stock, ours, strict=True):
        assert set(expected) == set(found)
        for name, value in expected.items():
            # Accuracies count which of two rewards is larger; where both are nearly zero, rounding decides.
            if not any(part in name for part in ("logits/", "accuracies", "runtime", "per_second", "flos")):
                # Rewards are differences of log-probabilities of about a hundred: they share their rounding.
                scale = 100 if "rewards" in name else 1
                assert found[name] == pytest.approx(value, rel=tolerance, abs=tolerance * scale), (
                    name,
                    expected,
                    found,
                )
                compared += 1
    assert compared > 20
    return ours


LOSSES = {
    "sigmoid": {},
    "hinge": {"pref_loss": "hinge"},
    "ipo": {"pref_loss": "ipo"},
    "kto_pair": {"pref_loss": "kto_pair"},
    "orpo": {"pref_loss": "orpo"},
    "simpo": {"pref_loss": "simpo", "simpo_gamma": 0.5},
    "label smoothing": {"dpo_label_smoothing": 0.1},
    "ld_alpha": {"ld_alpha": 0.3},
    "bco": {"pref_bco_weight": 0.5},
    "no sft part": {"pref_ftx": 0.0},
}
METHODS = {
    "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "full, another reference": {"finetuning_type": "full", "ref_model": "OTHER"},
    "LoRA, another reference": {"ref_model": "OTHER"},
    "batch of one": {"per_device_train_batch_size": 1},
    "batch of three, accumulated": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "max_steps": 3},
    "evaluation": {"val_size": 4, "eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 2},
    "two epochs": {"max_steps": -1, "num_train_epochs": 2.0},
    "no checkpointing": {"disable_gradient_checkpointing": True},
    "cut off": {"cutoff_len": 160},  # shorter prompts would be the system prompt only, and share a row
    "supervised": {"stage": "sft", "pref_ftx": None},
    "supervised, prompts too": {"stage": "sft", "pref_ftx": None, "train_on_prompt": True},
    "supervised, full, accumulated": {"stage": "sft", "finetuning_type": "full", "gradient_accumulation_steps": 3},
    "supervised, evaluation": {"stage": "sft", "val_size": 4, "eval_strategy": "steps", "eval_steps": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_the_same(recipe, tmp_path, family, loss):
    compare(recipe(family, max_steps=2, **LOSSES[loss]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_the_same(recipe, tmp_path, models, family, method):
    changes = METHODS[method]
    if "ref_model" in changes:
        changes = changes | {"ref_model": str(other_model(models(family, small_tokenizer=True), tmp_path))}
    compare(recipe(family, **changes), tmp_path)


def other_model(model, folder):
    """The same architecture with other weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    other = AutoModelForCausalLM.from_pretrained(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    other.save_pretrained(folder / "other")
    AutoTokenizer.from_pretrained(model).save_pretrained(folder / "other")
    return folder / "other"


@pytest.mark.slow
def test_qlora_is_the_same(recipe, tmp_path):
    """The embedded model in float32: quantised blocks are wider than the tiny models' layers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lf_longpo.models.embedded import model_path

    embedded = model_path("smollm2-135m")
    AutoModelForCausalLM.from_pretrained(embedded, dtype=torch.float32).save_pretrained(tmp_path / "float32")
    AutoTokenizer.from_pretrained(embedded).save_pretrained(tmp_path / "float32")
    changes = {"model_name_or_path": str(tmp_path / "float32"), "quantization_bit": 4}
    compare(recipe("glm4", max_steps=2, **changes), tmp_path, tolerance=1e-4)


@pytest.mark.slow
def test_a_lora_run_is_the_same(recipe, tmp_path):
    """A single case for a quick look."""
    ours = compare(recipe("glm4", max_steps=2), tmp_path)
    assert ours[0]["loss"] > 0


@pytest.mark.slow
def test_twenty_steps_are_the_same(recipe, tmp_path):
    compare(recipe("llama3", max_steps=20, learning_rate=5.0e-3, pref_beta=0.5), tmp_path, tolerance=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"disable_gradient_checkpointing": True}, {"stage": "sft", "pref_ftx": None}])
def test_layers_in_tiles_are_the_same(recipe, tmp_path, monkeypatch, changes):
    from lf_longpo.plugin.train import dpo_trainer, sft_trainer, tiling

    tiles = []

    def tile(model, _):
        tiling.tile_layers(model, tiling.Tiles(10, 10))
        for module in model.modules():
            if hasattr(module, "down_proj"):
                module.down_proj.register_forward_hook(lambda *passed: tiles.append(passed[2].shape[1]))

    monkeypatch.setattr(dpo_trainer, "tile_layers", tile)
    monkeypatch.setattr(sft_trainer, "tile_layers", tile)
    compare(recipe("llama3", **changes), tmp_path)
    # The check before the first step has rows without segments, and tiles of its own.
    assert tiles.count(10) > 100


def test_a_model_that_computes_otherwise_is_refused(recipe, tmp_path, monkeypatch):
    from lf_longpo.errors import UserError
    from lf_longpo.plugin.train import attention

    def everything(query, key, value, segments, scaling, causal):
        return causal(query, key, value, scaling)  # the rejected response sees the chosen one

    monkeypatch.setattr(attention, "packed_attention", everything)
    settings = recipe("glm4", model_name_or_path=str(sharp(recipe("glm4")["model_name_or_path"], tmp_path)))
    with pytest.raises(UserError, match="does not compute the same on packed rows"):
        history(settings, tmp_path / "out", packed=True)


def test_a_model_that_computes_otherwise_in_tiles_is_refused(recipe, tmp_path, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaAttention

    from lf_longpo.errors import UserError

    forward = LlamaAttention.forward

    def scaled(*arguments, **options):
        result, weights = forward(*arguments, **options)
        return 3 * result, weights  # after o_proj, where tiles do not see it

    monkeypatch.setattr(LlamaAttention, "forward", scaled)
    settings = recipe("llama3", model_name_or_path=str(sharp(recipe("llama3")["model_name_or_path"], tmp_path)))
    with pytest.raises(UserError, match="does not compute the same on packed rows"):
        history(settings, tmp_path / "out", packed=True)


def sharp(model, folder):
    """The model with large weights, so that what it sees matters as in a trained one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    sharp = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        for parameter in sharp.parameters():
            parameter.mul_(6 if parameter.ndim > 1 else 1)
    sharp.save_pretrained(folder / "sharp")
    AutoTokenizer.from_pretrained(model).save_pretrained(folder / "sharp")
    return folder / "sharp"


@pytest.mark.slow
def test_a_saved_model_is_an_ordinary_one(recipe, tmp_path):
    from transformers import AutoModelForCausalLM

    history(recipe("glm4", finetuning_type="full", max_steps=1), tmp_path / "out", packed=True)
    assert "packed" not in (tmp_path / "out/config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config._attn_implementation == "sdpa"


@pytest.mark.slow
def test_bfloat16_is_the_same_to_its_rounding(recipe, tmp_path):
    compare(recipe("llama3", bf16=True), tmp_path, 2e-2)


def test_packed_rows_define_which_tokens_attend_to_which():
    from lf_longpo.plugin.train.packing import pack

    prompt, chosen, rejected = [5, 6, 7], [8, 9], [10, 11, 12]
    ignored = [-100] * 3
    batch = pack([[(prompt + chosen, ignored + chosen), (prompt + rejected, ignored + rejected)]])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 11, 12]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    assert batch["keep"].tolist() == [2, 3, 2, 5, 6]
    assert batch["targets"].tolist() == [8, 9, 10, 11, 12]
    assert batch["owner"].tolist() == [0, 0, 1, 1, 1] and batch["rank"].tolist() == [0, 1, 0, 1, 2]
    assert batch["segments"] == [[3, 2, 3]] and batch["response_lengths"].tolist() == [2, 3]


def test_a_prompt_that_differs_is_not_shared():
    from lf_longpo.plugin.train.packing import pack

    batch = pack([[([1, 2, 8], [-100, -100, 8]), ([1, 3, 9], [-100, -100, 9])]])
    assert batch["input_ids"].tolist() == [[1, 2, 8, 3, 9]] and batch["position_ids"].tolist() == [[0, 1, 2, 1, 2]]
    assert batch["keep"].tolist() == [1, 3] and batch["targets"].tolist() == [8, 9]
    assert batch["segments"] == [[1, 2, 2]]


@pytest.mark.slow
def test_checkpoints_kept_in_the_cpus_memory(recipe, tmp_path, monkeypatch):
    """LLaMA-Factory's `use_unsloth_gc` brings them back to "cuda", which is the CPU here; ours stay on the CPU."""
    to, brought = torch.Tensor.to, []

    def here(tensor, *arguments, **options):
        if arguments == ("cuda",):
            brought.append(tensor)
            arguments = ("cpu",)
        return to(tensor, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", here)
    compare(recipe("llama3", use_unsloth_gc=True, max_steps=3), tmp_path)
    assert len(brought) == 2 * 3  # LLaMA-Factory's way, two layers, three steps
