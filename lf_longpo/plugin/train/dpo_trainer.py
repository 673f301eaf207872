"""LLaMA-Factory's DPO trainer on packed rows: prompts once, logits of responses only, references never twice."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from llamafactory.train.dpo.trainer import CustomDPOTrainer
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from trl.models.utils import prepare_deepspeed

from lf_longpo.plugin.train.attention import use_packed_attention
from lf_longpo.plugin.train.forward import kept_logits, measuring
from lf_longpo.plugin.train.logps import token_logps, token_means
from lf_longpo.plugin.train.packing import PairCollator
from lf_longpo.plugin.train.reference import ReferenceLogps
from lf_longpo.plugin.train.self_check import SelfCheck
from lf_longpo.plugin.train.tiling import tile_feed_forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PackedDPOTrainer(CustomDPOTrainer):
    """The same losses and metrics as `CustomDPOTrainer`, of which it replaces only how log-probabilities come about.

    `logits/chosen` and `logits/rejected` are means over the responses' positions (LLaMA-Factory: over all positions,
    prompts and padding included), since no others are computed.

    Args:
        model: the policy.
        make_reference: loads the reference model, where it is not the policy with its adapter off.
        starts_as_reference: whether that model is what the policy starts from.
        reference_identity: what tells the reference from another.
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
        tile_feed_forward(self.accelerator.unwrap_model(model))
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
        """Log-probabilities of the responses of a packed batch, summed (averaged for ipo, orpo and simpo)."""
        logits = kept_logits(model, batch)
        lengths, owner = batch["response_lengths"], batch["owner"]
        tokens = token_logps(logits, batch["targets"])
        if self.ld_alpha is not None and not is_ref_model:
            # LD-DPO: what one response has beyond the other's length counts less.
            shorter = lengths.view(2, -1).amin(0).repeat(2)
            tokens = tokens * torch.where(batch["rank"] < shorter[owner], 1.0, self.ld_alpha)
        logps = tokens.new_zeros(len(lengths)).index_add(0, owner, tokens)
        averages = logps / lengths
        if self.loss_type in ("ipo", "orpo", "simpo"):
            logps = averages
        means, chosen = token_means(logits), owner < len(lengths) // 2
        sides = logps.chunk(2)
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
        """The reference's log-probabilities: those known from before, or from a pass of the same kind."""
        if not self.finetuning_args.use_ref_model:
            return None, None
        known = self.references.find(batch["digests"], self.accelerator.device)
        # Where weights are split over processes all must take part in a pass, or none.
        if self._any(known is None):
            fresh = super().compute_reference_log_probs(model, batch)
            if known is None:
                self.references.keep(batch["digests"], *fresh)
                known = fresh
        return known

    def compute_references(self) -> None:
        """Computes the reference's log-probabilities of all pairs ahead, so that no reference model is there later."""
        if self._make_reference is None:
            return
        model = self.model_wrapped if self._starts_as_reference and not self.state.global_step else None
        sets = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        for dataset in (self.train_dataset, *sets):
            if dataset is None:
                continue
            loader = DataLoader(dataset, self.args.per_device_train_batch_size, collate_fn=self.data_collator)
            for batch in self.accelerator.prepare(loader):
                if not self._any(self.references.find(batch["digests"], self.accelerator.device) is None):
                    continue
                if model is None:
                    model = self._load_reference()
                with measuring(model):
                    found = self.concatenated_forward(model, self._prepare_inputs(batch), is_ref_model=True)
                self.references.keep(batch["digests"], found["chosen_logps"], found["rejected_logps"])
        self.references.share()
        if model is not None and model is not self.model_wrapped:
            self._free(model)

    def _load_reference(self) -> torch.nn.Module:
        """The reference model, on its device or split as the policy is."""
        model = self._make_reference()
        use_packed_attention(model)
        tile_feed_forward(model)
        if self.is_deepspeed_enabled and self.finetuning_args.ref_model_quantization_bit is None:
            return prepare_deepspeed(model, self.accelerator)
        return self.accelerator.prepare_model(model, evaluation_mode=True)

    def _free(self, model: torch.nn.Module) -> None:
        """Lets a reference model go, of which the accelerator keeps a list."""
        kept = self.accelerator._models
        kept[:] = [other for other in kept if other is not model]
        if hasattr(model, "destroy"):  # DeepSpeed's engine
            model.destroy()

    def _any(self, mine: bool) -> bool:
        """Whether it is so in any process."""
        if self.accelerator.num_processes == 1:
            return mine
        return bool(self.accelerator.reduce(torch.tensor(float(mine), device=self.accelerator.device)).item())


class _References(TrainerCallback):
    """Computes references ahead where they need a model of their own, and shares them between epochs."""

    def __init__(self, trainer: PackedDPOTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.compute_references()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.references.share()
