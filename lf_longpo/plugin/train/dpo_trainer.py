"""LLaMA-Factory's DPO trainer on packed rows: one copy of each prompt, logits of responses only, one reference pass."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from llamafactory.train.dpo.trainer import CustomDPOTrainer
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from lf_longpo.plugin.compat import prepared_inputs, release_model, split_reference_model
from lf_longpo.plugin.train.attention import use_packed_attention
from lf_longpo.plugin.train.packed_forward import token_values, without_gradients
from lf_longpo.plugin.train.packing import PairCollator
from lf_longpo.plugin.train.reference_logps import ReferenceLogps
from lf_longpo.plugin.train.self_check import SelfCheck
from lf_longpo.plugin.train.tiling import tile_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PackedDPOTrainer(CustomDPOTrainer):
    """Has the losses and metrics of `CustomDPOTrainer`; only the computation of log-probabilities differs.

    `logits/chosen` and `logits/rejected` are means over the responses' positions, since no others are computed.
    LLaMA-Factory's are means over all positions, including prompts and padding.

    Args:
        model: the policy.
        make_reference: loads the reference model; None if the policy without its adapter is the reference.
        starts_as_reference: whether the policy starts with the weights of that model.
        reference_identity: what identifies the reference model.
        others: as `CustomDPOTrainer`; its collator is replaced.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        make_reference: Callable[[], "PreTrainedModel"] | None,
        starts_as_reference: bool,
        reference_identity: Sequence[Any],
        **others: Any,
    ) -> None:
        others["data_collator"] = PairCollator()
        super().__init__(model=model, **others)
        use_packed_attention(self.accelerator.unwrap_model(model))
        tile_layers(self.accelerator.unwrap_model(model))
        self.add_callback(SelfCheck(self))
        self._make_reference = make_reference
        self._starts_as_reference = starts_as_reference
        if self.finetuning_args.use_ref_model:
            identity = [*reference_identity, model.config.to_json_string(), str(model.dtype), self.loss_type == "ipo"]
            identity += [self.args.bf16, self.args.fp16, bool(self.args.deepspeed), self.args.seed]
            folder = Path(self.args.output_dir, "reference_logps")
            self.references = ReferenceLogps(folder, identity, self.accelerator.process_index)
            self.add_callback(_References(self))

    def concatenated_forward(
        self, model: "PreTrainedModel", batch: dict[str, Any], is_ref_model: bool = False
    ) -> dict[str, torch.Tensor]:
        """Log-probabilities of the responses of a packed batch, summed (averaged for ipo, orpo and simpo).

        Returns:
            chosen_logps, rejected_logps and chosen_logps_avg: (B,) each for B pairs; chosen_logits and rejected_logits:
            the mean logit of every position in the loss.
        """
        tokens, means = token_values(model, batch)
        lengths, owner = batch["response_lengths"], batch["owner"]
        if self.ld_alpha is not None and not is_ref_model:
            # LD-DPO (arXiv 2409.06411): tokens beyond the length of the shorter response count less.
            shorter = lengths.view(2, -1).amin(0).repeat(2)
            tokens = tokens * torch.where(batch["rank"] < shorter[owner], 1.0, self.ld_alpha)
        logps = tokens.new_zeros(len(lengths)).index_add(0, owner, tokens)
        averages = logps / lengths
        if self.loss_type in ("ipo", "orpo", "simpo"):
            logps = averages
        chosen, sides = owner < len(lengths) // 2, logps.chunk(2)
        return {
            "chosen_logps": sides[0],
            "rejected_logps": sides[1],
            "chosen_logits": means[chosen],
            "rejected_logits": means[~chosen],
            "chosen_logps_avg": averages.chunk(2)[0],
        }

    def compute_reference_log_probs(
        self, model: "PreTrainedModel", batch: dict[str, Any]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The reference's log-probabilities, (B,) each: the stored ones, or those of a pass over packed rows."""
        if not self.finetuning_args.use_ref_model:
            return None, None
        known = self.references.find(batch["digests"], self.accelerator.device)
        # Where weights are split over processes, either all processes take part in a pass or none.
        if self._any(known is None):
            computed = super().compute_reference_log_probs(model, batch)
        if known is None:
            self.references.keep(batch["digests"], *computed)
            return computed
        return known

    def compute_references(self) -> None:
        """Computes the reference's log-probabilities of all pairs, so that training needs no reference model."""
        make_reference = self._make_reference
        if make_reference is None:
            return
        model: Any = self.model_wrapped if self._starts_as_reference and not self.state.global_step else None
        sets = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        for dataset in (self.train_dataset, *sets):
            if dataset is None:
                continue
            loader = DataLoader(dataset, self.args.per_device_train_batch_size, collate_fn=self.data_collator)
            for batch in self.accelerator.prepare(loader):
                if not self._any(self.references.find(batch["digests"], self.accelerator.device) is None):
                    continue
                if model is None:
                    model = self._prepared_reference(make_reference())
                with without_gradients(model):
                    found = self.concatenated_forward(model, prepared_inputs(self, batch), is_ref_model=True)
                self.references.keep(batch["digests"], found["chosen_logps"], found["rejected_logps"])
        self.references.share()
        if model is not None and model is not self.model_wrapped:
            self._free(model)

    def _prepared_reference(self, model: "PreTrainedModel") -> torch.nn.Module:
        """Puts the reference model on its device, or splits it as the policy is."""
        use_packed_attention(model)
        tile_layers(model)
        split = self.is_deepspeed_enabled and self.finetuning_args.ref_model_quantization_bit is None
        if split or self.is_fsdp_enabled:
            return split_reference_model(model, self.accelerator)
        return self.accelerator.prepare_model(model, evaluation_mode=True)

    def _free(self, model: Any) -> None:
        """Frees the memory of a reference model."""
        release_model(self.accelerator, model)
        if hasattr(model, "destroy"):  # DeepSpeed's engine
            model.destroy()

    def _any(self, here: bool) -> bool:
        """Whether a condition holds in any process; `here` is its value in this one."""
        if self.accelerator.num_processes == 1:
            return here
        return bool(self.accelerator.reduce(torch.tensor(float(here), device=self.accelerator.device)).item())


class _References(TrainerCallback):
    """Computes references before the first step where they need their own model; shares them after each epoch."""

    def __init__(self, trainer: PackedDPOTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.compute_references()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.references.share()
