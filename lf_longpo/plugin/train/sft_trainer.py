"""LLaMA-Factory's SFT trainer on packed rows: no padding, logits of responses only."""

from typing import TYPE_CHECKING, Any

import torch
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer

from lf_longpo.plugin.train.attention import use_packed_attention
from lf_longpo.plugin.train.packed_forward import token_values
from lf_longpo.plugin.train.packing import AnswerCollator
from lf_longpo.plugin.train.self_check import SelfCheck
from lf_longpo.plugin.train.sequence_trainer import SequenceParallelTrainer
from lf_longpo.plugin.train.tiling import tile_layers, tiles_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PackedSFTTrainer(SequenceParallelTrainer, CustomSeq2SeqTrainer):
    """Has the loss of `CustomSeq2SeqTrainer`; its collator is replaced.

    Args:
        model: the model to train.
        parallel: number of processes over which each row is split.
        others: as `CustomSeq2SeqTrainer`.
    """

    def __init__(self, model: "PreTrainedModel", parallel: int = 1, **others: Any) -> None:
        others["data_collator"] = AnswerCollator()
        super().__init__(model=model, **others)
        unwrapped = self.accelerator.unwrap_model(model)
        use_packed_attention(unwrapped)
        tile_layers(unwrapped, tiles_of(unwrapped, self.accelerator))
        self.split_rows(parallel)
        self.add_callback(SelfCheck(self))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy of the responses' tokens, averaged as transformers' trainer does; a scalar."""
        tokens = token_values(model, inputs, self.splitter).logps
        counted = num_items_in_batch if self.model_accepts_loss_kwargs else None
        loss = -tokens.sum() / (len(tokens) if counted is None else counted)
        if counted is not None and self.args.average_tokens_across_devices:
            loss = loss * self.groups
        return (loss, {"loss": loss}) if return_outputs else loss
