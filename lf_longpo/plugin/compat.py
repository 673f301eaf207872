"""Every private name and every replaced name of other libraries that the plugin relies on.

LLaMA-Factory, transformers, TRL and accelerate may change these names in any release. `tests/plugin/test_compat.py`
checks each of them against the installed releases; run it first after an upgrade. No other file of the package imports
a private name of these libraries or assigns to one of their modules.

LLaMA-Factory is imported inside the functions.
"""

import ast
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from datasets import Dataset
    from llamafactory.data.parser import DatasetAttr
    from llamafactory.hparams import DataArguments, ModelArguments, TrainingArguments
    from transformers import PretrainedConfig, PreTrainedModel, Trainer

OVERRIDDEN: Mapping[str, str] = {
    "llamafactory.train.dpo.trainer.CustomDPOTrainer.concatenated_forward": (
        "PackedDPOTrainer computes log-probabilities on packed rows; the trainer derives its losses from them."
    ),
    "llamafactory.train.dpo.trainer.CustomDPOTrainer.compute_reference_log_probs": (
        "PackedDPOTrainer computes the reference's log-probabilities once for each pair."
    ),
    "llamafactory.train.dpo.trainer.CustomDPOTrainer.get_batch_samples": (
        "PackedDPOTrainer counts the pairs of a step over all batches and processes."
    ),
    "llamafactory.train.dpo.trainer.CustomDPOTrainer.get_batch_loss_metrics": (
        "PackedDPOTrainer takes the mean over the pairs of a step, not over batches of unequal numbers of pairs."
    ),
    "llamafactory.train.dpo.trainer.CustomDPOTrainer.compute_preference_loss": (
        "PackedDPOTrainer weights pairs by their rewards, and has a listwise loss."
    ),
    "llamafactory.train.sft.trainer.CustomSeq2SeqTrainer.compute_loss": (
        "PackedSFTTrainer computes the loss on packed rows."
    ),
    "llamafactory.train.tuner.Worker._training_function": (
        "RayWorker installs the trainers in the actor's process; the tuner calls this method in every actor."
    ),
}
"""Methods that classes of the plugin override, each with the reason."""


def template_names() -> list[str]:
    """The names of LLaMA-Factory's templates, sorted; read from its source, because its import takes seconds."""
    spec = importlib.util.find_spec("llamafactory")  # finds without importing
    assert spec and spec.submodule_search_locations, "LLaMA-Factory is installed with this package"
    source = Path(spec.submodule_search_locations[0], "data", "template.py").read_text(encoding="utf-8")
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "register_template")
    values = (word.value for call in named for word in call.keywords if word.arg == "name")
    return sorted(str(value.value) for value in values if isinstance(value, ast.Constant))


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replaces an attribute of a module of another library in this process.

    A second replacement starts from the original again, so that repeated calls have the effect of the last one.

    Args:
        owner: a module.
        name: of the attribute.
        make: gets the original and returns the replacement, which takes further attributes.
    """
    current = getattr(owner, name)
    original = getattr(current, "_longpo_original", current)
    replacement = make(original)
    replacement._longpo_original = original
    setattr(owner, name, replacement)


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replaces an attribute of a module until the block ends."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def train_argument_classes() -> tuple[type, ...]:
    """The dataclasses whose fields are the settings of a recipe: `longpo check` validates keys and values with them.

    Raises:
        ImportError: LLaMA-Factory does not support the installed release of a library that it needs.
    """
    from llamafactory.hparams.parser import _TRAIN_ARGS

    return tuple(_TRAIN_ARGS)


@contextmanager
def without_package_checks() -> Iterator[None]:
    """Parses recipes without LLaMA-Factory's check of optional packages, which stops at the first missing one."""
    from llamafactory.hparams import parser

    with replaced(parser, "_check_extra_dependencies", lambda *_: None):
        yield


def load_raw_dataset(
    attr: "DatasetAttr", model: "ModelArguments", data: "DataArguments", training: "TrainingArguments"
) -> "Dataset":
    """The rows of a data set by LLaMA-Factory's loader, with their own columns.

    The loader's conversion is switched off: it fails without naming the row or the column.
    """
    from llamafactory.data import loader

    with replaced(loader, "align_dataset", lambda dataset, *_: dataset):
        return loader._load_single_dataset(attr, model, data, training)


def thought_marks(template: Any) -> tuple[str, str] | None:
    """What LLaMA-Factory writes before and after a thought under a reasoning template; None for other templates.

    Args:
        template: LLaMA-Factory's.
    """
    from llamafactory.data.template import ReasoningTemplate

    if not isinstance(template, ReasoningTemplate):
        return None
    opening, closing = template.thought_words
    return opening, closing


def dataset_processor(data: "DataArguments", stage: str, template: Any, tokenizer: Any, processor: Any) -> Any:
    """LLaMA-Factory's encoder of converted rows: `longpo check` measures the tokens that training will have."""
    from llamafactory.data.loader import _get_dataset_processor

    return _get_dataset_processor(data, stage, template, tokenizer, processor)


def replace_load_config(make: Callable[[Any], Any]) -> None:
    """Replaces the function with which LLaMA-Factory loads a model's configuration before its weights.

    The number format of the weights is read from this configuration.
    """
    # LLaMA-Factory's loader imports TRL, and this module changes which packages TRL takes for installed.
    import llamafactory.extras.packages  # noqa: F401
    from llamafactory.model import loader

    replace(loader, "load_config", make)


def replace_trainers(
    dpo: Callable[[Any], Any], sft: Callable[[Any], Any], create_reference: Callable[[Any], Any]
) -> None:
    """Replaces the trainer classes that the DPO and SFT workflows use, and DPO's function for the reference model.

    The DPO workflow imports its trainer inside `run_dpo`, so the class is replaced where it is defined. The SFT
    workflow imports its trainer at its top, so the class is replaced in the workflow.
    """
    from llamafactory.train.dpo import trainer as dpo_trainer
    from llamafactory.train.dpo import workflow as dpo_workflow
    from llamafactory.train.sft import workflow as sft_workflow

    replace(dpo_trainer, "CustomDPOTrainer", dpo)
    replace(dpo_workflow, "create_ref_model", create_reference)
    replace(sft_workflow, "CustomSeq2SeqTrainer", sft)


def replace_dpo_workflow(wrap: Callable[[Any], Any]) -> None:
    """Replaces LLaMA-Factory's DPO workflow, from data and model to the saved result."""
    from llamafactory.train import tuner

    replace(tuner, "run_dpo", wrap)


def _same(step: Any) -> Any:
    return step


@contextmanager
def pair_data_steps(
    split: Callable[[Any], Any] = _same,
    align: Callable[[Any], Any] = _same,
    processor: Callable[[Any], Any] = _same,
) -> Iterator[None]:
    """Replaces steps of LLaMA-Factory's data loader until the block ends. Each argument gets the original.

    Args:
        split: of the function that holds out `val_size`.
        align: of the function that converts the rows of one data set.
        processor: of the function that makes the encoder of converted rows.
    """
    from llamafactory.data import loader

    with (
        replaced(loader, "split_dataset", split(loader.split_dataset)),
        replaced(loader, "align_dataset", align(loader.align_dataset)),
        replaced(loader, "_get_dataset_processor", processor(loader._get_dataset_processor)),
    ):
        yield


def replace_loading_steps(get_dataset: Callable[[Any], Any], load_model: Callable[[Any], Any]) -> None:
    """Replaces the functions with which the DPO and SFT workflows load the data and the model: they report both."""
    from llamafactory.train.dpo import workflow as dpo_workflow
    from llamafactory.train.sft import workflow as sft_workflow

    for workflow in (dpo_workflow, sft_workflow):
        replace(workflow, "get_dataset", get_dataset)
        replace(workflow, "load_model", load_model)


def replace_offloading(make: Callable[[Any], Any]) -> None:
    """Replaces the function that returns the checkpointing function of `use_unsloth_gc`."""
    from llamafactory.model.model_utils import checkpointing

    replace(checkpointing, "get_unsloth_gradient_checkpointing_func", make)


def use_ray_worker(worker: type) -> None:
    """Sets the class of the actors that LLaMA-Factory starts on the devices of a Ray cluster."""
    from llamafactory.train import tuner

    tuner.Worker = worker


def attention_kernel(config: "PretrainedConfig") -> str:
    """The attention implementation of a model, by transformers' name; it decides whether rows can be packed."""
    return str(config._attn_implementation)


def prepared_inputs(trainer: "Trainer", batch: dict[str, Any]) -> dict[str, Any]:
    """A batch on the trainer's device: the self-check and the reference pass run outside transformers' loop."""
    return trainer._prepare_inputs(batch)


def share_batches(accelerator: "Accelerator", size: int) -> None:
    """Gives consecutive processes, `size` at a time, the same batches, and gathers one copy of what they have.

    Args:
        accelerator: of the trainer; the loaders that it prepares from now on change.
        size: divides the number of processes.
    """
    from accelerate import accelerator as module
    from accelerate.utils import recursively_apply

    prepare, gather = accelerator.prepare_data_loader, accelerator.gather
    groups, group = accelerator.num_processes // size, accelerator.process_index // size
    load = module.prepare_data_loader

    def load_by_group(loader: Any, device: Any, **options: Any) -> Any:
        if groups == 1:
            # accelerate takes a single reader for a run of one process, and leaves each to its own random numbers.
            options["rng_types"] = ["torch"]
        return load(loader, device, **options | {"num_processes": groups, "process_index": group})

    def prepare_by_group(*arguments: Any, **options: Any) -> Any:
        with replaced(module, "prepare_data_loader", load_by_group):
            return prepare(*arguments, **options)

    def first_of_groups(gathered: "torch.Tensor") -> "torch.Tensor":
        return gathered.unflatten(0, (groups, size, -1))[:, 0].flatten(0, 1)

    def gather_by_group(tensors: Any) -> Any:
        return recursively_apply(first_of_groups, gather(tensors))

    accelerator.prepare_data_loader, accelerator.gather = prepare_by_group, gather_by_group


def split_reference_model(model: "PreTrainedModel", accelerator: "Accelerator") -> "torch.nn.Module":
    """The reference model under DeepSpeed or FSDP, split as the policy is; LLaMA-Factory uses the same functions."""
    from accelerate.utils import DistributedType
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model
    from trl.models.utils import prepare_deepspeed, prepare_fsdp

    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return prepare_deepspeed(model, accelerator)
    return fsdp2_prepare_model(accelerator, model) if accelerator.is_fsdp2 else prepare_fsdp(model, accelerator)


def release_model(accelerator: "Accelerator", model: "torch.nn.Module | PreTrainedModel") -> None:
    """Removes a model from the list that accelerate keeps, so that the reference model's memory can be freed."""
    models = accelerator._models
    models[:] = [kept for kept in models if kept is not model]
