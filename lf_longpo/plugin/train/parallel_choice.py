"""Over how many processes the rows of a run are split: what the user asked for, and what cannot be split."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lf_longpo.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_processes(parallel: int) -> None:
    """Checks in a training process that its run can be divided into groups.

    Raises:
        UserError: the number of processes is no multiple of `parallel`.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes % parallel:
        counted = "1 process" if processes == 1 else f"{processes} processes"
        raise UserError(f"--sequence-parallel {parallel}: set --sequence-parallel to a divisor of the {counted}")


def reason_for_whole_rows(model: "PreTrainedModel") -> str | None:
    """Why the rows of a packed run cannot be split over processes, or None where they can.

    Args:
        model: the policy; its weights are not read.
    """
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if "dynamic" in kind or kind == "longrope":
        return f"its rotary embedding depends on the length of the row (rope_type {kind})"
    return None


def least_parallel(settings: Mapping[str, Any], processes: int) -> int:
    """The least P with which the longest example of a recipe fits the devices.

    Args:
        settings: of the recipe.
        processes: of the run; the result divides their number.

    Raises:
        UserError: no P is known to fit.
    """
    # The estimate of plugin/check/memory_estimate.py takes no P yet.
    raise UserError("--sequence-parallel auto: the memory estimate does not know P yet. Set --sequence-parallel P")
