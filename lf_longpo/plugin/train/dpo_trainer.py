"""LLaMA-Factory's DPO trainer on packed rows: one copy of each prompt, logits of responses only, one reference pass.

Pairs with the same prompt are one element of the data set, see `groups`. The loss of a step is the mean over its pairs
(with the listwise loss: its prompts), over all batches and processes. LLaMA-Factory takes the mean of the batches'
means, which is the same where all batches have the same number of pairs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from llamafactory.train.dpo.trainer import CustomDPOTrainer
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from lf_longpo.plugin.compat import prepared_inputs, release_model, split_reference_model
from lf_longpo.plugin.train.attention import use_packed_attention
from lf_longpo.plugin.train.groups import Groups, step_size, use_step_size
from lf_longpo.plugin.train.options import TrainOptions
from lf_longpo.plugin.train.packed_forward import token_values, without_gradients
from lf_longpo.plugin.train.pair_collator import PairCollator
from lf_longpo.plugin.train.pair_losses import listwise_losses, mean_gap, response_means
from lf_longpo.plugin.train.reference_logps import ReferenceLogps
from lf_longpo.plugin.train.self_check import SelfCheck
from lf_longpo.plugin.train.sequence_trainer import SequenceParallelTrainer
from lf_longpo.plugin.train.tiling import tile_layers, tiles_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PackedDPOTrainer(SequenceParallelTrainer, CustomDPOTrainer):
    """Has the losses and metrics of `CustomDPOTrainer`; only the computation of log-probabilities differs.

    `logits/chosen` and `logits/rejected` are means over the responses' positions, since no others are computed.
    LLaMA-Factory's are means over all positions, including prompts and padding.

    Args:
        model: the policy.
        make_reference: loads the reference model; None if the policy without its adapter is the reference.
        starts_as_reference: whether the policy starts with the weights of that model.
        reference_identity: what identifies the reference model.
        parallel: number of processes over which each row is split.
        options: what the loss is beyond the recipe.
        others: as `CustomDPOTrainer`; its collator is replaced, its data sets are grouped, and batch and accumulation
            change as `groups` says.

    Raises:
        UserError: the options need rewards, and the data sets have none.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        make_reference: Callable[[], "PreTrainedModel"] | None,
        starts_as_reference: bool,
        reference_identity: Sequence[Any],
        options: TrainOptions,
        parallel: int = 1,
        **others: Any,
    ) -> None:
        self._options = options
        self._mean_gap = mean_gap(others["train_dataset"], options)
        self._batch: dict[str, Any] = {}
        self._mean_of_step: float | None = None
        super().__init__(model=model, **others | _grouped(others, options) | {"data_collator": PairCollator()})
        unwrapped = self.accelerator.unwrap_model(model)
        use_packed_attention(unwrapped)
        tile_layers(unwrapped, tiles_of(unwrapped, self.accelerator))
        self.split_rows(parallel)
        self.add_callback(SelfCheck(self))
        self._make_reference = make_reference
        self._starts_as_reference = starts_as_reference
        if self.finetuning_args.use_ref_model:
            identity = [*reference_identity, model.config.to_json_string(), str(model.dtype), self.loss_type == "ipo"]
            identity += [self.args.bf16, self.args.fp16, bool(self.args.deepspeed), self.args.seed]
            folder = Path(str(self.args.output_dir), "reference_logps")
            self.references = ReferenceLogps(
                folder, identity, self.accelerator.process_index, writes=self.is_first_of_group
            )
            self.add_callback(_References(self))

    def concatenated_forward(
        self, model: "PreTrainedModel", batch: dict[str, Any], is_ref_model: bool = False
    ) -> dict[str, torch.Tensor]:
        """Log-probabilities of the responses of a packed batch, summed (averaged for ipo, orpo and simpo).

        Returns:
            chosen_logps, rejected_logps and chosen_logps_avg: (B,) each for B pairs; chosen_logits and rejected_logits:
            the mean logit of every position in the loss.
        """
        found, means = token_values(model, batch, self.splitter)
        # A response is computed once, and its tokens count on every side that it is on.
        tokens, side = _tokens_of_sides(batch["response_lengths"], batch["sides"])
        lengths = batch["response_lengths"][batch["sides"]]
        values = found[tokens]
        if self.ld_alpha is not None and not is_ref_model:
            # LD-DPO (arXiv 2409.06411): tokens beyond the length of the shorter response count less.
            shorter = lengths.view(2, -1).amin(0).repeat(2)
            values = values * torch.where(batch["rank"][tokens] < shorter[side], 1.0, self.ld_alpha)
        logps = values.new_zeros(len(lengths)).index_add(0, side, values)
        averages = logps / lengths
        if self.loss_type in ("ipo", "orpo", "simpo"):
            logps = averages
        chosen, sides = side < len(lengths) // 2, logps.chunk(2)
        return {
            "chosen_logps": sides[0],
            "rejected_logps": sides[1],
            "chosen_logits": means[tokens[chosen]],
            "rejected_logits": means[tokens[~chosen]],
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
            self._keep_references(batch, *computed)
            return computed
        chosen, rejected = known[batch["sides"]].chunk(2)
        return chosen, rejected

    def _keep_references(self, batch: dict[str, Any], chosen: torch.Tensor, rejected: torch.Tensor) -> None:
        digests = [batch["digests"][response] for response in batch["sides"].tolist()]
        self.references.keep(digests, torch.cat((chosen, rejected)))

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The batches of a step; counts what its loss is the mean of, over all batches and processes."""
        samples, items = super().get_batch_samples(*args, **kwargs)
        groups: Any = self.train_dataset
        if samples and groups.shared:
            counted = torch.tensor(float(sum(map(self._counted, samples))), device=self.accelerator.device)
            everywhere = self.accelerator.reduce(counted).item()
            self._mean_of_step = everywhere / (len(samples) * self.accelerator.num_processes)
        return samples, items

    def get_batch_loss_metrics(
        self, model: "PreTrainedModel", batch: dict[str, Any], train_eval: Literal["train", "eval"] = "train"
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """LLaMA-Factory's loss and metrics, scaled so that their mean over batches is the mean over pairs."""
        self._batch = batch
        loss, metrics = super().get_batch_loss_metrics(model, batch, train_eval)
        share = 1.0
        if train_eval == "eval" and not self._options.pref_loss:
            # transformers weights the loss of a batch by its number of elements.
            groups = int(batch["prompts"][-1]) + 1
            share = self._counted(batch) / (groups * batch["pairs_per_group"])
        elif train_eval == "train" and self._mean_of_step:
            share = self._counted(batch) / self._mean_of_step
        if share == 1.0:
            return loss, metrics
        return loss * share, {name: value * share for name, value in metrics.items()}

    def _counted(self, batch: dict[str, Any]) -> int:
        """Number of losses in a batch: of prompts for the listwise loss, else of pairs."""
        return int(batch["prompts"][-1]) + 1 if self._options.pref_loss else len(batch["prompts"])

    def compute_preference_loss(
        self,
        policy_chosen_logps: torch.Tensor,
        policy_rejected_logps: torch.Tensor,
        reference_chosen_logps: torch.Tensor | None,
        reference_rejected_logps: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """LLaMA-Factory's losses of pairs, changed as `pair_losses` says; with their rewards, (B,) each."""
        others = (policy_rejected_logps, reference_chosen_logps, reference_rejected_logps)
        if not self._options.needs_rewards:
            return super().compute_preference_loss(policy_chosen_logps, *others)
        gaps = torch.sub(*self._batch["rewards"].chunk(2))
        margins = self._options.pair_margin * gaps
        losses, chosen, rejected = super().compute_preference_loss(policy_chosen_logps - margins / self.beta, *others)
        chosen = chosen + margins
        if self._options.pref_loss:
            losses = self._listwise_losses(policy_chosen_logps, *others)
        if self._options.pair_weight:
            supervised = -policy_chosen_logps if self.loss_type == "orpo" else 0.0
            losses = supervised + (losses - supervised) * gaps / self._mean_gap
        return losses, chosen, rejected

    def _listwise_losses(self, chosen: Any, rejected: Any, reference_chosen: Any, reference_rejected: Any) -> Any:
        """For each pair its share of its prompt's loss: their mean is the mean over the prompts, (B,)."""
        batch = self._batch
        number = len(batch["digests"])
        ratios = torch.cat((chosen - reference_chosen, rejected - reference_rejected))
        scores = self.beta * response_means(ratios, batch["sides"], number)
        rewards = response_means(batch["rewards"], batch["sides"], number)
        pairs = torch.bincount(batch["prompts"])
        prompts = torch.empty(number, dtype=torch.long, device=scores.device)
        prompts[batch["sides"]] = batch["prompts"].repeat(2)
        losses = listwise_losses(scores, rewards, prompts, len(pairs)) / pairs
        return losses[batch["prompts"]] * (len(batch["prompts"]) / len(pairs))

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
                self._keep_references(batch, found["chosen_logps"], found["rejected_logps"])
        self.references.share()
        if model is not None and model is not self.model_wrapped:
            self._free(model)

    def _prepared_reference(self, model: "PreTrainedModel") -> torch.nn.Module:
        """Puts the reference model on its device, or splits it as the policy is."""
        use_packed_attention(model)
        tile_layers(model, tiles_of(model, self.accelerator))
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


def _grouped(others: dict[str, Any], options: TrainOptions) -> dict[str, Any]:
    """The data sets of a trainer's arguments, grouped; sets the batch sizes of the arguments."""
    args, evaluation = others["args"], others.get("eval_dataset")
    train = Groups(others["train_dataset"], options.max_row_tokens)
    batch, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    use_step_size(args, step_size(batch, accumulation, train.pairs_per_group))
    sets = evaluation if isinstance(evaluation, dict) else {"": evaluation} if evaluation is not None else {}
    held_out = {name: Groups(pairs, options.max_row_tokens) for name, pairs in sets.items()}
    if held_out:
        mean = sum(len(groups.pairs) for groups in held_out.values()) / sum(map(len, held_out.values()))
        args.per_device_eval_batch_size = step_size(args.per_device_eval_batch_size, 1, mean).batch
    return {"train_dataset": train, "eval_dataset": held_out if isinstance(evaluation, dict) else held_out.get("")}


def _tokens_of_sides(lengths: torch.Tensor, sides: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens in the loss of every side, one side after the other.

    Args:
        lengths: (R,) tokens in the loss of each response.
        sides: (2P,) the response of each side.

    Returns:
        For each token its index among the tokens of all responses, and the number of its side.
    """
    counts = lengths[sides]
    side = torch.repeat_interleave(counts)
    starts = lengths.cumsum(0) - lengths
    before = counts.cumsum(0) - counts
    return starts[sides][side] + torch.arange(len(side), device=side.device) - before[side], side


class _References(TrainerCallback):
    """Computes references before the first step where they need their own model; shares them after each epoch."""

    def __init__(self, trainer: PackedDPOTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.compute_references()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.references.share()
