"""Hands our trainers to LLaMA-Factory's workflows, which keep everything else: data, callbacks, logs, checkpoints."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from lf_longpo.plugin.train.reference import model_identity
from lf_longpo.plugin.train.support import reason_for_stock

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer


def prepare(settings: Mapping[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
    """Puts our trainers in place in this process; returns the settings to train with on its device."""
    from lf_longpo.plugin.train.compute_format import adapt

    install(note)
    adapted, reason = adapt(settings)
    if reason:
        note(reason)
    return adapted


def install(note: Callable[[str], None] = print) -> None:
    """From now on, LLaMA-Factory's DPO and SFT workflows in this process build our trainers where a run allows it.

    Args:
        note: shows the user a sentence about how the run will be trained.
    """
    from llamafactory.train.dpo import trainer as dpo
    from llamafactory.train.dpo import workflow as dpo_workflow
    from llamafactory.train.sft import workflow as sft_workflow

    from lf_longpo.plugin.train.dpo_trainer import PackedDPOTrainer
    from lf_longpo.plugin.train.sft_trainer import PackedSFTTrainer

    stock_dpo, stock_sft = dpo.CustomDPOTrainer, sft_workflow.CustomSeq2SeqTrainer
    reference = _LaterReference(dpo_workflow.create_ref_model)

    def dpo_trainer(model: "PreTrainedModel", ref_model: Any, **others: Any) -> "Trainer":
        if reason := reason_for_stock(model, **others):
            note(f"plain LLaMA-Factory, since {reason}")
            # Without training, LLaMA-Factory hands the model itself on and never asks for another.
            return stock_dpo(model=model, ref_model=ref_model or reference.now(), **others)
        how = reference.needed()
        told = "a reference pass ahead" if how else "reference passes in the first epoch only"
        if not others["finetuning_args"].use_ref_model:
            told = "no reference"
        note(f"prompts shared by chosen and rejected, logits of responses only, {told}")
        return PackedDPOTrainer(
            model=model,
            ref_model=None,
            make_reference=how,
            starts_as_reference=reference.is_start(model, others["args"]),
            reference_identity=reference.identity(),
            **others,
        )

    def sft_trainer(model: "PreTrainedModel", **others: Any) -> "Trainer":
        if reason := reason_for_stock(model, **others):
            note(f"plain LLaMA-Factory, since {reason}")
            return stock_sft(model=model, **others)
        note("no padding, logits of responses only")
        return PackedSFTTrainer(model=model, **others)

    dpo_workflow.create_ref_model = reference
    dpo.CustomDPOTrainer = dpo_trainer
    sft_workflow.CustomSeq2SeqTrainer = sft_trainer


class _LaterReference:
    """Stands in for LLaMA-Factory's `create_ref_model`: loads the model only if it turns out to be needed."""

    def __init__(self, create: Callable[..., Any]) -> None:
        self._create = create
        self._arguments: tuple[Any, ...] | None = None

    def __call__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def now(self) -> Any:
        """The reference model; None where the policy's adapter is switched off for it, or the loss has none."""
        return self._create(*self._arguments) if self._arguments else None

    def needed(self) -> Callable[[], Any] | None:
        """What loads it, or None as above."""
        if not self._arguments:
            return None
        _, tuning = self._arguments
        adapter_off = tuning.finetuning_type == "lora" and tuning.ref_model is None
        return None if adapter_off else partial(self._create, *self._arguments)

    def is_start(self, policy: "PreTrainedModel", args: Any) -> bool:
        """Whether the policy starts as the reference model, in the same number format."""
        if not self._arguments:
            return False
        model, tuning = self._arguments
        same = tuning.ref_model in (None, model.model_name_or_path) and tuning.ref_model_adapters is None
        same = same and tuning.ref_model_quantization_bit is None and tuning.finetuning_type in ("full", "freeze")
        # LLaMA-Factory trains in float32 what it loads as a reference in half precision; DeepSpeed narrows it again.
        formats = {parameter.dtype for parameter in policy.parameters()}
        return same and (bool(args.deepspeed) or formats == {policy.config.dtype})

    def identity(self) -> list[Any]:
        """What tells this reference from another; the policy's own configuration comes beside it."""
        if not self._arguments:
            return []
        model, tuning = self._arguments
        adapters = [*(model.adapter_name_or_path or []), *_listed(tuning.ref_model_adapters)]
        settings = (model.model_revision, model.quantization_bit, model.quantization_method, model.double_quantization)
        return [
            model_identity(tuning.ref_model or model.model_name_or_path),
            [model_identity(adapter) for adapter in adapters],
            [str(setting) for setting in settings],
            [tuning.create_new_adapter, tuning.ref_model_quantization_bit, tuning.finetuning_type],
        ]


def _listed(adapters: Any) -> list[str]:
    return adapters.split(",") if isinstance(adapters, str) else list(adapters or [])
