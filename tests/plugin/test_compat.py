"""The installed LLaMA-Factory, transformers, TRL and accelerate have the private names on which the plugin relies."""

import ast
import importlib
import inspect
import json
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY, write_jsonl

from lf_longpo.plugin import compat
from lf_longpo.plugin.recipe import parse_recipe

LIBRARIES = {"llamafactory", "transformers", "trl", "peft", "accelerate", "torch", "datasets"}
PACKAGE = REPOSITORY / "lf_longpo"


def parameters(function):
    return list(inspect.signature(function).parameters)


def overriding_classes():
    from lf_longpo.plugin.train.dpo_trainer import PackedDPOTrainer
    from lf_longpo.plugin.train.ray_worker import RayWorker
    from lf_longpo.plugin.train.sft_trainer import PackedSFTTrainer

    return PackedDPOTrainer, PackedSFTTrainer, RayWorker


@pytest.mark.parametrize("name", compat.OVERRIDDEN)
def test_an_overridden_method_exists_and_takes_what_ours_takes(name):
    path, stock_name, method = name.rsplit(".", 2)
    stock = getattr(importlib.import_module(path), stock_name)
    (ours,) = (cls for cls in overriding_classes() if issubclass(cls, stock))
    assert method in vars(stock) and method in vars(ours)
    if stock_name == "CustomSeq2SeqTrainer":  # LLaMA-Factory passes all but the first arguments on to transformers
        from transformers import Trainer

        stock = Trainer
    assert parameters(getattr(ours, method)) == parameters(getattr(stock, method))


def test_every_override_is_listed():
    stock = ("CustomDPOTrainer", "CustomSeq2SeqTrainer", "Worker")
    for cls in overriding_classes():
        (parent,) = (parent for parent in cls.__mro__[1:] if parent.__name__ in stock)
        inherited = {name for name in vars(cls) if not name.startswith("__") and hasattr(parent, name)}
        listed = {name.rsplit(".", 1)[1] for name in compat.OVERRIDDEN if f".{parent.__name__}." in name}
        assert {name for name in inherited if callable(getattr(cls, name))} == listed


def test_the_dpo_trainer_has_the_attributes_that_ours_reads():
    from llamafactory.train.dpo.trainer import CustomDPOTrainer

    source = inspect.getsource(CustomDPOTrainer.__init__)
    for name in ("finetuning_args", "loss_type", "ld_alpha", "ref_model"):
        assert f"self.{name} = " in source


def test_reasoning_templates_have_marks_of_thoughts():
    from llamafactory.data.template import TEMPLATES

    assert compat.thought_marks(TEMPLATES["qwen3"]) == ("<think>\n", "\n</think>\n\n")
    assert compat.thought_marks(TEMPLATES["glm4_7"]) == ("<think>", "</think>")
    assert compat.thought_marks(TEMPLATES["qwen3_nothink"]) is None


def test_a_setting_of_every_kind_is_known():
    from dataclasses import fields

    names = {field.name for cls in compat.train_argument_classes() for field in fields(cls)}
    assert {"model_name_or_path", "cutoff_len", "learning_rate", "pref_beta", "temperature"} <= names


def test_a_recipe_is_parsed_without_its_packages(monkeypatch):
    from llamafactory.hparams import parser

    asked = []
    monkeypatch.setattr(parser, "_check_extra_dependencies", lambda *arguments: asked.append(arguments))
    settings = {"stage": "dpo", "do_train": True, "model_name_or_path": "x", "dataset": "x", "output_dir": "x"}
    settings |= {"template": "llama3", "use_cpu": True}
    parse_recipe(settings)
    assert asked == []
    parser.get_train_args(settings)
    assert len(asked) == 1


@pytest.fixture
def run(tmp_path):
    """A parsed recipe with one data set in `tmp_path`."""
    rows = [{"prompt": "Where?", "chosen": "There.", "rejected": "Nowhere."}] * 2
    write_jsonl(tmp_path / "rows.jsonl", rows)
    columns = {name: name for name in rows[0]}
    entry = {"file_name": "rows.jsonl", "ranking": True, "columns": columns}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"pairs": entry}))
    settings = {
        "stage": "dpo",
        "do_train": True,
        "model_name_or_path": "x",
        "dataset": "pairs",
        "dataset_dir": str(tmp_path),
        "template": "smollm2",
        "cutoff_len": 64,
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
    }
    return parse_recipe(settings)


def test_rows_are_loaded_with_their_own_columns(run):
    from llamafactory.data import loader
    from llamafactory.data.parser import get_dataset_list

    align = loader.align_dataset
    (attr,) = get_dataset_list(["pairs"], run.data.dataset_dir)
    rows = compat.load_raw_dataset(attr, run.model, run.data, run.training)
    assert rows.column_names == ["prompt", "chosen", "rejected"] and len(rows) == 2
    assert loader.align_dataset is align


def test_the_processor_of_pairs_encodes_both_responses(run):
    from llamafactory.data.template import get_template_and_fix_tokenizer

    from lf_longpo.models.tokenizers import load_tokenizer

    tokenizer = load_tokenizer("smollm2-135m", "tokenizer", False)
    template = get_template_and_fix_tokenizer(tokenizer, run.data)
    processor = compat.dataset_processor(run.data, "rm", template, tokenizer, None)
    message = {"role": "user", "content": "Where?"}
    answers = [{"role": "assistant", "content": text} for text in ("There.", "Nowhere.")]
    converted = {"_prompt": [[message]], "_response": [answers], "_system": [""], "_tools": [""]}
    converted |= {"_images": [None], "_videos": [None], "_audios": [None]}
    encoded = processor.preprocess_dataset(converted)
    assert {"chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels"} <= set(encoded)


@pytest.fixture
def modules(monkeypatch):
    """LLaMA-Factory's modules with replaced names, restored after the test."""
    from llamafactory.model import loader
    from llamafactory.train import tuner
    from llamafactory.train.dpo import trainer as dpo_trainer
    from llamafactory.train.dpo import workflow as dpo
    from llamafactory.train.sft import workflow as sft

    names = {
        loader: ["load_config"],
        tuner: ["Worker", "run_dpo"],
        dpo_trainer: ["CustomDPOTrainer"],
        dpo: ["create_ref_model", "get_dataset", "load_model"],
        sft: ["CustomSeq2SeqTrainer", "get_dataset", "load_model"],
    }
    for module, attributes in names.items():
        for name in attributes:
            monkeypatch.setattr(module, name, getattr(module, name))
    return SimpleNamespace(loader=loader, tuner=tuner, dpo_trainer=dpo_trainer, dpo=dpo, sft=sft)


def called_names(function):
    return {node.func.id for node in ast.walk(ast.parse(inspect.getsource(function))) if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)}  # fmt: skip


def test_the_workflows_look_up_the_replaced_names_when_they_run(modules):
    """Each name is a global of the module in which it is replaced, or imported inside the function that uses it."""
    assert {"get_dataset", "load_model", "create_ref_model", "CustomDPOTrainer"} <= called_names(modules.dpo.run_dpo)
    assert {"get_dataset", "load_model", "CustomSeq2SeqTrainer"} <= called_names(modules.sft.run_sft)
    assert "from .trainer import CustomDPOTrainer" in inspect.getsource(modules.dpo.run_dpo)
    assert "load_config" in called_names(modules.loader.load_model)
    assert "Worker" in inspect.getsource(modules.tuner._ray_training_function)
    assert parameters(modules.loader.load_config) == ["model_args"]
    assert parameters(modules.dpo.create_ref_model)[:2] == ["model_args", "finetuning_args"]
    assert parameters(modules.dpo.get_dataset)[:3] == ["template", "model_args", "data_args"]
    assert parameters(modules.dpo.load_model)[:2] == ["tokenizer", "model_args"]


def test_the_loader_looks_up_the_steps_of_pair_data_when_it_runs(modules):
    from llamafactory.data import loader

    assert "run_dpo" in called_names(modules.tuner._training_function)
    assert "split_dataset" in called_names(loader.get_dataset)
    assert "align_dataset" in called_names(loader._load_single_dataset)
    assert "_get_dataset_processor" in called_names(loader._get_preprocessed_dataset)
    assert parameters(loader.split_dataset) == ["dataset", "eval_dataset", "data_args", "seed"]
    assert parameters(loader.align_dataset)[:2] == ["dataset", "dataset_attr"]


def test_steps_of_pair_data_are_replaced_until_the_workflow_ends(modules):
    from llamafactory.data import loader

    names = ("split_dataset", "align_dataset", "_get_dataset_processor")
    stock, seen = [getattr(loader, name) for name in names], []

    def workflow(*arguments):
        seen.extend([arguments, *(getattr(loader, name) for name in names)])

    modules.tuner.run_dpo = workflow

    def wrap(run_dpo):
        def run(*arguments):
            with compat.pair_data_steps(align=lambda step: ("align", step)):
                run_dpo(*arguments)

        return run

    compat.replace_dpo_workflow(wrap)
    modules.tuner.run_dpo("model")
    assert seen == [("model",), stock[0], ("align", stock[1]), stock[2]]
    assert [getattr(loader, name) for name in names] == stock


def test_a_second_replacement_starts_from_the_original():
    def original():
        return ["original"]

    module = SimpleNamespace(function=original)
    for name in ("first", "second"):
        compat.replace(module, "function", lambda stock, name=name: lambda: [*stock(), name])
    assert module.function() == ["original", "second"]


def test_names_are_replaced_where_they_are_used(modules):
    def wrap(label):
        return lambda stock: lambda *_: (label, stock)

    stock = modules.dpo_trainer.CustomDPOTrainer, modules.sft.CustomSeq2SeqTrainer, modules.dpo.create_ref_model
    compat.replace_trainers(wrap("dpo"), wrap("sft"), wrap("reference"))
    made = modules.dpo_trainer.CustomDPOTrainer(), modules.sft.CustomSeq2SeqTrainer(), modules.dpo.create_ref_model()
    assert made == tuple(zip(("dpo", "sft", "reference"), stock, strict=True))
    compat.replace_loading_steps(wrap("data"), wrap("model"))
    for workflow in (modules.dpo, modules.sft):
        assert (workflow.get_dataset()[0], workflow.load_model()[0]) == ("data", "model")
    load_config = modules.loader.load_config
    compat.replace_load_config(wrap("config"))
    assert modules.loader.load_config() == ("config", load_config)
    compat.use_ray_worker(SimpleNamespace)
    assert modules.tuner.Worker is SimpleNamespace


def test_transformers_accelerate_and_trl_have_what_is_used():
    import torch
    from accelerate import Accelerator
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer
    from trl.models.utils import prepare_deepspeed, prepare_fsdp

    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    assert compat.attention_kernel(LlamaForCausalLM(config).config) == "sdpa"
    assert parameters(Trainer._prepare_inputs) == ["self", "inputs"]
    assert parameters(prepare_deepspeed) == parameters(prepare_fsdp) == ["model", "accelerator"]
    assert parameters(fsdp2_prepare_model) == ["accelerator", "model"]
    assert isinstance(Accelerator.is_fsdp2, property)
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare_model(torch.nn.Linear(1, 1), evaluation_mode=True)
    assert any(kept is model for kept in accelerator._models)
    compat.release_model(accelerator, model)
    assert not any(kept is model for kept in accelerator._models)


def private_uses(path):
    """Imports of private names of other libraries in a source, and private attributes of what is imported from them."""
    tree, imported, found = ast.parse(path.read_text()), set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            imported |= {alias.asname or alias.name for alias in node.names}
            found += [alias.name for alias in node.names if alias.name.startswith("_")]
        elif isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name for alias in node.names if alias.name.split(".")[0] in LIBRARIES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            if node.attr.startswith("_") or isinstance(node.ctx, ast.Store):
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Attribute) and node.attr in ("_attn_implementation", "_prepare_inputs", "_models"):
            found.append(node.attr)
    return found


def test_private_names_are_used_in_compat_only():
    uses = {path.relative_to(PACKAGE).as_posix(): private_uses(path) for path in PACKAGE.glob("plugin/**/*.py")}
    assert uses.pop("plugin/compat.py")
    # The actor's class is LLaMA-Factory's own, whose method it overrides; see compat.OVERRIDDEN.
    assert {path: names for path, names in uses.items() if names} == {}


def test_the_names_of_templates_are_in_the_source():
    from llamafactory.data.template import TEMPLATES

    assert compat.template_names() == sorted(TEMPLATES)
