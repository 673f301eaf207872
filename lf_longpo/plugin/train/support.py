"""Which runs can be packed. The others train as plain LLaMA-Factory would, and the reason is told."""

import inspect
from typing import TYPE_CHECKING, Any

from lf_longpo.plugin.train.attention import KERNELS

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def reason_for_stock(model: "PreTrainedModel", **others: Any) -> str | None:
    """Why a run cannot be packed, or None where it can.

    Args:
        model: the policy, with or without adapter.
        others: what LLaMA-Factory hands to its trainer.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = base.config.get_text_config()
    args, tuning = others["args"], others["finetuning_args"]
    kernel = base.config._attn_implementation
    dataset = others.get("train_dataset")
    columns = getattr(dataset, "column_names", None) or []
    windows = "sliding_attention" in (getattr(config, "layer_types", None) or []) or (
        getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    )
    reasons = [
        (dataset is None, "there is nothing to train"),
        (others.get("processor") is not None, "the model takes more than text"),
        (
            kernel not in KERNELS,
            f"attention is {kernel}, not one of {', '.join(KERNELS)} (flash_attn: auto, sdpa or fa2)",
        ),
        (windows, "the model's attention has sliding windows"),
        (getattr(config, "attn_logit_softcapping", None), "the model's attention is soft-capped"),
        ("logits_to_keep" not in inspect.signature(base.forward).parameters, "the model cannot leave logits out"),
        (args.fsdp, "FSDP was not tried with packed rows"),
        (args.label_smoothing_factor, "label_smoothing_factor needs every logit"),
        (args.predict_with_generate or tuning.compute_accuracy, "its evaluation needs every logit or writes text"),
        (
            tuning.use_dft_loss or tuning.use_eaft_loss or tuning.use_asft_loss,
            "the loss is none of cross-entropy and preference losses",
        ),
        ("position_ids" in columns or "packing_params" in columns, "examples are packed already (packing)"),
        (getattr(config, "output_router_logits", False), "the router's loss needs every position"),
    ]
    return next((reason for holds, reason in reasons if holds), None)
