"""Which runs can be packed. The others train as plain LLaMA-Factory would, and the reason is told."""

import inspect
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset

from lf_longpo.plugin.train.attention import KERNELS
from lf_longpo.plugin.train.packing import IGNORE

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
    windows = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    kinds = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    # Layers that carry a state from token to token would carry it from one example into the next.
    stateful = [
        name for name in vars(config) if name.startswith(("mamba_", "conv_", "linear_", "ssm_", "attention_chunk"))
    ]
    collator = others.get("data_collator")
    reasons = [
        (dataset is None or not args.do_train, "there is nothing to train"),
        (isinstance(dataset, IterableDataset) or args.accelerator_config.dispatch_batches, "the data are streamed"),
        (others.get("processor") is not None, "the model takes more than text"),
        (
            kernel not in KERNELS,
            f"attention is {kernel}, not one of {', '.join(KERNELS)} (flash_attn: auto, sdpa or fa2)",
        ),
        (windows or kinds or stateful, "some of its layers are no plain attention over all that came before"),
        (getattr(config, "attn_logit_softcapping", None), "the model's attention is soft-capped"),
        (getattr(config, "attention_dropout", 0), "attention_dropout is drawn for every pair of tokens"),
        (args.neftune_noise_alpha, "neftune_noise_alpha depends on the length of a row"),
        ("logits_to_keep" not in inspect.signature(base.forward).parameters, "the model cannot leave logits out"),
        (args.fsdp, "FSDP was not tried with packed rows"),
        (args.label_smoothing_factor, "label_smoothing_factor needs every logit"),
        (
            getattr(collator, "label_pad_token_id", IGNORE) != IGNORE,
            "padding counts (ignore_pad_token_for_loss: false)",
        ),
        (args.predict_with_generate or tuning.compute_accuracy, "its evaluation needs every logit or writes text"),
        (
            tuning.use_dft_loss or tuning.use_eaft_loss or tuning.use_asft_loss,
            "the loss is none of cross-entropy and preference losses",
        ),
        ("position_ids" in columns or "packing_params" in columns, "examples are packed already (packing)"),
        (getattr(config, "output_router_logits", False), "the router's loss needs every position"),
    ]
    return next((reason for holds, reason in reasons if holds), None)
