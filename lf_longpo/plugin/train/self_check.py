"""Before the first step: short pieces of the first two examples, computed as LLaMA-Factory does and as we do.

A model that does not pass on to its attention what it is given, or looks at it in its own way, is told here and not by
a strange loss curve.
"""

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from lf_longpo.errors import UserError
from lf_longpo.plugin.train.forward import kept_logits, measuring
from lf_longpo.plugin.train.logps import token_logps
from lf_longpo.plugin.train.packing import IGNORE, pack

if TYPE_CHECKING:
    from transformers import Trainer

_PROMPT, _RESPONSE = 192, 32
# Mean difference of a token's log-probability that rounding explains; wrong attention is off by tenths.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_HALF_TOLERANCE = 5e-2

Branch = tuple[list[int], list[int]]


class SelfCheck(TrainerCallback):
    """Refuses to train a model for which packed rows are not the same.

    Args:
        trainer: whose model and data are checked.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Compares, on every process alike.

        Raises:
            UserError: the two computations disagree.
        """
        trainer = self._trainer
        # Two examples in a row, so that what one leaks into the next shows.
        pieces = [_piece(trainer.train_dataset[number % len(trainer.train_dataset)]) for number in range(2)]
        model = trainer.model_wrapped
        with measuring(model):
            device = trainer.args.device
            # In the order of a packed batch: first branches, then second ones.
            branches = [branch for side in zip(*pieces, strict=True) for branch in side]
            expected = torch.cat([_alone(model, branch, device) for branch in branches])
            batch = trainer._prepare_inputs(pack(pieces))
            found = token_logps(kept_logits(model, batch), batch["targets"])
        difference = (found - expected).abs().mean().item()
        tolerance = _TOLERANCE.get(next(trainer.model.parameters()).dtype, _HALF_TOLERANCE)
        if trainer.args.bf16 or trainer.args.fp16:
            tolerance = _HALF_TOLERANCE
        if not difference <= tolerance:
            raise UserError(
                f"this model does not compute the same on packed rows (log-probabilities differ by {difference:.2g} a "
                "token on pieces of the first examples); train it with longpo train --stock"
            )


def _piece(feature: dict[str, Any]) -> list[Branch]:
    sides = ("chosen_", "rejected_") if "chosen_input_ids" in feature else ("",)
    return [_shortened(feature[f"{side}input_ids"], feature[f"{side}labels"]) for side in sides]


def _shortened(ids: list[int], labels: list[int]) -> Branch:
    start = next((i for i, label in enumerate(labels) if label != IGNORE), len(labels))
    begin, end = max(0, start - _PROMPT), min(len(ids), start + _RESPONSE)
    return ids[begin:end], labels[begin:end]


def _alone(model: torch.nn.Module, branch: Branch, device: torch.device) -> torch.Tensor:
    ids, labels = (torch.tensor(part, device=device) for part in branch)
    logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], use_cache=False).logits[0]
    told = labels[1:] != IGNORE
    return token_logps(logits[:-1][told].float(), labels[1:][told])
