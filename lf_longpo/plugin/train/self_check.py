"""A check before the first step: log-probabilities of short pieces of the first two examples, computed in both ways.

The packed rows are computed whole and in tiles. Some models do not pass `segments` to their attention, or compute
attention in another way. The check stops such a run before it trains with a wrong loss.
"""

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from lf_longpo.errors import UserError
from lf_longpo.plugin.compat import prepared_inputs
from lf_longpo.plugin.train.logps import token_logps
from lf_longpo.plugin.train.packed_forward import token_values, without_gradients
from lf_longpo.plugin.train.packing import IGNORE, pack, response_order
from lf_longpo.plugin.train.pair_collator import branches_of
from lf_longpo.plugin.train.tiling import in_small_tiles

if TYPE_CHECKING:
    from transformers import Trainer

_PROMPT, _RESPONSE = 192, 32
_BRANCHES = 3  # prompt and first response are one causal attention, and further responses are others
# Mean difference of a token's log-probability that rounding explains; with wrong attention it is some tenths.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_HALF_TOLERANCE = 5e-2

Branch = tuple[list[int], list[int]]


class SelfCheck(TrainerCallback):
    """Refuses to train a model that does not compute the same on packed rows.

    Args:
        trainer: its model and data are checked.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Compares the two computations, in every process with the same examples.

        Raises:
            UserError: the two computations disagree.
        """
        trainer: Any = self._trainer
        # Two examples in one row, so that attention across examples shows up.
        pieces = [_piece(trainer.train_dataset[number % len(trainer.train_dataset)]) for number in range(2)]
        model = trainer.model_wrapped
        with without_gradients(model):
            device = trainer.args.device
            order = response_order([len(piece) for piece in pieces])
            expected = torch.cat([_alone(model, pieces[example][branch], device) for example, branch in order])
            batch = prepared_inputs(trainer, pack(pieces))
            found = [token_values(model, batch, trainer.splitter).logps]
            with in_small_tiles(_PROMPT // 2):
                found.append(token_values(model, batch, trainer.splitter).logps)
        difference = max((logps - expected).abs().mean().item() for logps in found)
        tolerance = _TOLERANCE.get(next(trainer.model.parameters()).dtype, _HALF_TOLERANCE)
        if trainer.args.bf16 or trainer.args.fp16:
            tolerance = _HALF_TOLERANCE
        if not difference <= tolerance:
            raise UserError(
                f"this model does not compute the same on packed rows (log-probabilities differ by {difference:.2g} "
                "per token on parts of the first examples); train it with longpo train --stock"
            )


def _piece(feature: dict[str, Any]) -> list[Branch]:
    branches = (
        branches_of(feature["pairs"]).branches if "pairs" in feature else [(feature["input_ids"], feature["labels"])]
    )
    return [_shortened(*branch) for branch in branches[:_BRANCHES]]


def _shortened(ids: list[int], labels: list[int]) -> Branch:
    start = next((i for i, label in enumerate(labels) if label != IGNORE), len(labels))
    begin, end = max(0, start - _PROMPT), min(len(ids), start + _RESPONSE)
    return ids[begin:end], labels[begin:end]


def _alone(model: torch.nn.Module, branch: Branch, device: torch.device) -> torch.Tensor:
    ids, labels = (torch.tensor(part, device=device) for part in branch)
    logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], use_cache=False).logits[0]
    in_loss = labels[1:] != IGNORE
    return token_logps(logits[:-1][in_loss].float(), labels[1:][in_loss])
