"""Whether the options of `longpo train` fit a recipe."""

from collections.abc import Mapping
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.plugin.train.options import TrainOptions

_WITH_MARGIN = ("sigmoid", "hinge", "ipo", "kto_pair", "simpo")
# Settings that the listwise loss does not read.
_OF_PAIRS = ("dpo_label_smoothing", "pref_bco_weight", "ld_alpha")


def check_options(options: TrainOptions, settings: Mapping[str, Any]) -> None:
    """Checks that the options fit the recipe.

    Args:
        options: of `longpo train`.
        settings: of the recipe.

    Raises:
        UserError: they do not fit.
    """
    if not options.of_pairs:
        return
    # LLaMA-Factory's defaults.
    stage, loss = settings.get("stage") or "sft", settings.get("pref_loss") or "sigmoid"
    if stage != "dpo":
        raise UserError(f"{options.of_pairs} needs pairs; set stage: dpo, not {stage}, in the recipe")
    if options.pair_margin and loss not in _WITH_MARGIN:
        raise UserError(
            f"--pair-margin has no meaning for pref_loss: {loss}; set pref_loss to one of {', '.join(_WITH_MARGIN)}"
        )
    if options.pair_margin and settings.get("pref_bco_weight"):
        raise UserError("--pair-margin does not apply to the loss of pref_bco_weight; remove pref_bco_weight")
    if not options.pref_loss:
        return
    if loss != "sigmoid":
        raise UserError(f"--pref-loss {options.pref_loss} replaces the recipe's loss; remove pref_loss: {loss}")
    if used := [setting for setting in _OF_PAIRS if settings.get(setting)]:
        raise UserError(f"--pref-loss {options.pref_loss} does not use {used[0]}; remove {used[0]} from the recipe")
    if options.pair_weight or options.pair_margin:
        raise UserError(f"--pref-loss {options.pref_loss} compares no pairs; remove --pair-weight and --pair-margin")


def check_packed(options: TrainOptions, reason: str) -> None:
    """Checks that no option is lost where plain LLaMA-Factory trains.

    Args:
        options: of `longpo train`.
        reason: why it trains.

    Raises:
        UserError: an option would have no effect.
    """
    if options.of_pairs:
        raise UserError(
            f"{options.of_pairs} needs the trainer of longpo train, but plain LLaMA-Factory trains this recipe, since "
            f"{reason}; remove the option, or change the recipe"
        )
