"""Over how many processes the rows of a run are split: what the user asked for, and what cannot be split."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

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


def least_parallel(recipe: str, overrides: Sequence[str], processes: int, max_row_tokens: int | None) -> int:
    """The least P with which the longest example of a recipe fits the devices, by the estimate of `longpo check`.

    Args:
        recipe: path of the recipe.
        overrides: key=value; they replace settings of the recipe.
        processes: of the run; the result divides their number.
        max_row_tokens: the option of `longpo train`.

    Raises:
        UserError: no P is known to fit.
    """
    from lf_longpo.plugin.check.memory_findings import PACKED
    from lf_longpo.plugin.check.recipe_check import check

    found = check(recipe, overrides, gpus=processes, parallel=0, max_row_tokens=max_row_tokens).findings
    if found.facts.get("longpo train", {}).get("reason"):
        return 1  # plain LLaMA-Factory trains, which does not split rows
    memory = found.facts.get("memory", {})
    packed = memory.get("ways", {}).get(PACKED)
    if packed is None:
        raise UserError("--sequence-parallel auto: the memory of this run is not estimated. Set --sequence-parallel P")
    if not packed["fits"]:
        raise UserError(
            f"--sequence-parallel auto: by the estimate, the longest row fits with no P on {processes} devices. Run "
            "longpo check to see what lowers its memory, or set --sequence-parallel P"
        )
    return int(memory["sequence parallel"])
