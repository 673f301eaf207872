"""Which runs can be packed. The others train as plain LLaMA-Factory would, and the reason is reported.

`longpo train` takes the facts from the loaded model, data and collator, `longpo check` from the recipe. Both use the
same list of reasons.
"""

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset

from lf_longpo.plugin.train.attention import KERNELS, stock_kernel
from lf_longpo.plugin.train.packing import IGNORE

if TYPE_CHECKING:
    from llamafactory.hparams import FinetuningArguments, TrainingArguments
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class RunFacts:
    """The facts on which it depends whether a run can be packed.

    Attributes:
        model: the policy without adapter; its weights are not read.
        training: LLaMA-Factory's training arguments.
        tuning: LLaMA-Factory's finetuning arguments.
        has_data: whether there is a training set.
        streamed: whether the training set is streamed.
        multimodal: whether the model has a processor.
        packed: whether LLaMA-Factory packs examples (`packing`).
        padding_counts: whether padding is in the loss.
    """

    model: "PreTrainedModel"
    training: "TrainingArguments"
    tuning: "FinetuningArguments"
    has_data: bool
    streamed: bool
    multimodal: bool
    packed: bool
    padding_counts: bool


def reason_for_stock(model: "PreTrainedModel", **others: Any) -> str | None:
    """Why a run cannot be packed, or None where it can.

    Args:
        model: the policy, with or without adapter.
        others: further arguments of LLaMA-Factory's trainer.
    """
    dataset = others.get("train_dataset")
    columns = getattr(dataset, "column_names", None) or []
    return reason_of(
        RunFacts(
            model=_without_adapter(model),
            training=others["args"],
            tuning=others["finetuning_args"],
            has_data=dataset is not None,
            streamed=isinstance(dataset, IterableDataset),
            multimodal=others.get("processor") is not None,
            packed="position_ids" in columns or "packing_params" in columns,
            padding_counts=getattr(others.get("data_collator"), "label_pad_token_id", IGNORE) != IGNORE,
        )
    )


def _without_adapter(model: Any) -> "PreTrainedModel":
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def reason_for_other_workflow(settings: Mapping[str, Any]) -> str | None:
    """Why a recipe trains in a workflow that builds neither the DPO nor the SFT trainer, or None where it does.

    Args:
        settings: of the recipe.
    """
    stage = settings.get("stage", "sft")  # LLaMA-Factory's default
    mca = os.environ.get("USE_MCA", "0").lower() in ("true", "y", "1")
    reasons = _other_workflow(stage, mca, settings.get("use_hyper_parallel"))
    return next((reason for holds, reason in reasons if holds), None)


def _other_workflow(stage: str, mca: bool, hyper_parallel: Any) -> list[tuple[Any, str]]:
    return [
        (stage not in ("dpo", "sft"), f"only the stages dpo and sft are accelerated, not {stage}"),
        (mca, "Megatron trains (USE_MCA)"),
        (stage == "sft" and hyper_parallel, "use_hyper_parallel has its own trainer"),
    ]


def reason_of(run: RunFacts) -> str | None:
    """Why a run cannot be packed, or None where it can."""
    args, tuning = run.training, run.tuning
    config = run.model.config.get_text_config()
    kernel = stock_kernel(run.model)
    windows = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    kinds = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    # Layers that carry a state from token to token would carry it from one example into the next.
    stateful = [
        name for name in vars(config) if name.startswith(("mamba_", "conv_", "linear_", "ssm_", "attention_chunk"))
    ]
    # LLaMA-Factory reads these settings in SFT only; DPO has its own loss and evaluation.
    supervised = tuning.stage == "sft"
    reasons = [
        *_other_workflow(tuning.stage, tuning.use_mca, tuning.use_hyper_parallel),
        (not run.has_data or not args.do_train, "there is nothing to train"),
        (run.streamed or args.accelerator_config.dispatch_batches, "the data is streamed"),
        (run.multimodal, "the model takes other input than text"),
        (
            kernel not in KERNELS,
            f"attention is {kernel}, not one of {', '.join(KERNELS)} (flash_attn: auto, sdpa or fa2)",
        ),
        (windows or kinds or stateful, "some of its layers are not plain attention over all earlier tokens"),
        (getattr(config, "attn_logit_softcapping", None), "the model's attention is soft-capped"),
        (getattr(config, "attention_dropout", 0), "attention_dropout draws a number for every pair of tokens"),
        (args.neftune_noise_alpha, "the noise of neftune_noise_alpha depends on the length of a row"),
        (
            "logits_to_keep" not in inspect.signature(run.model.forward).parameters,
            "the model computes the logits of every position (its forward has no logits_to_keep)",
        ),
        (args.fsdp, "fsdp is a setting of the recipe (start FSDP with accelerate launch)"),
        (supervised and args.label_smoothing_factor, "label_smoothing_factor needs every logit"),
        (run.padding_counts, "padding is in the loss (ignore_pad_token_for_loss: false)"),
        (supervised and args.predict_with_generate, "predict_with_generate evaluates by generating text"),
        (supervised and tuning.compute_accuracy, "compute_accuracy needs every logit"),
        (
            supervised and (tuning.use_dft_loss or tuning.use_eaft_loss or tuning.use_asft_loss),
            "the loss is not cross-entropy (use_dft_loss, use_eaft_loss or use_asft_loss)",
        ),
        (run.packed, "LLaMA-Factory packs the examples (packing)"),
        (
            getattr(config, "output_router_logits", False),
            "the router's loss needs every position (output_router_logits)",
        ),
    ]
    return next((reason for holds, reason in reasons if holds), None)
