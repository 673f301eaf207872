"""Which runs can be packed. The others train as plain LLaMA-Factory would, for a reason that is said.

`longpo train` takes the facts from the loaded model, data and collator, `longpo check` from the recipe. The list of
reasons is the same.
"""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset

from lf_longpo.plugin.train.attention import KERNELS
from lf_longpo.plugin.train.packing import IGNORE

if TYPE_CHECKING:
    from llamafactory.hparams import FinetuningArguments, TrainingArguments
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class RunFacts:
    """What decides whether a run can be packed.

    Attributes:
        model: the policy without adapter; its weights are not looked at.
        training: LLaMA-Factory's training arguments.
        tuning: its finetuning arguments.
        has_data: whether there is a training set.
        streamed: whether the training set is streamed.
        multimodal: whether the model has a processor.
        packed: whether LLaMA-Factory packs examples itself.
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
        others: what LLaMA-Factory hands to its trainer.
    """
    dataset = others.get("train_dataset")
    columns = getattr(dataset, "column_names", None) or []
    return reason_of(
        RunFacts(
            model=model.get_base_model() if hasattr(model, "get_base_model") else model,
            training=others["args"],
            tuning=others["finetuning_args"],
            has_data=dataset is not None,
            streamed=isinstance(dataset, IterableDataset),
            multimodal=others.get("processor") is not None,
            packed="position_ids" in columns or "packing_params" in columns,
            padding_counts=getattr(others.get("data_collator"), "label_pad_token_id", IGNORE) != IGNORE,
        )
    )


def reason_of(run: RunFacts) -> str | None:
    """Why a run cannot be packed, or None where it can."""
    args, tuning = run.training, run.tuning
    config = run.model.config.get_text_config()
    kernel = run.model.config._attn_implementation
    windows = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    kinds = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    # Layers that carry a state from token to token would carry it from one example into the next.
    stateful = [
        name for name in vars(config) if name.startswith(("mamba_", "conv_", "linear_", "ssm_", "attention_chunk"))
    ]
    # LLaMA-Factory reads these settings in SFT only; DPO has its own loss and evaluation.
    supervised = tuning.stage == "sft"
    reasons = [
        (tuning.stage not in ("dpo", "sft"), f"only the stages dpo and sft are accelerated, not {tuning.stage}"),
        (tuning.use_mca, "Megatron trains (USE_MCA)"),
        (supervised and tuning.use_hyper_parallel, "use_hyper_parallel has a trainer of its own"),
        (not run.has_data or not args.do_train, "there is nothing to train"),
        (run.streamed or args.accelerator_config.dispatch_batches, "the data are streamed"),
        (run.multimodal, "the model takes more than text"),
        (
            kernel not in KERNELS,
            f"attention is {kernel}, not one of {', '.join(KERNELS)} (flash_attn: auto, sdpa or fa2)",
        ),
        (windows or kinds or stateful, "some of its layers are no plain attention over all that came before"),
        (getattr(config, "attn_logit_softcapping", None), "the model's attention is soft-capped"),
        (getattr(config, "attention_dropout", 0), "attention_dropout is drawn for every pair of tokens"),
        (args.neftune_noise_alpha, "neftune_noise_alpha depends on the length of a row"),
        ("logits_to_keep" not in inspect.signature(run.model.forward).parameters, "the model cannot leave logits out"),
        (args.fsdp, "FSDP was not tried with packed rows"),
        (supervised and args.label_smoothing_factor, "label_smoothing_factor needs every logit"),
        (run.padding_counts, "padding counts (ignore_pad_token_for_loss: false)"),
        (supervised and args.predict_with_generate, "predict_with_generate has the evaluation write text"),
        (supervised and tuning.compute_accuracy, "compute_accuracy needs every logit"),
        (
            supervised and (tuning.use_dft_loss or tuning.use_eaft_loss or tuning.use_asft_loss),
            "the loss is none of cross-entropy and preference losses",
        ),
        (run.packed, "examples are packed already (packing)"),
        (getattr(config, "output_router_logits", False), "the router's loss needs every position"),
    ]
    return next((reason for holds, reason in reasons if holds), None)
