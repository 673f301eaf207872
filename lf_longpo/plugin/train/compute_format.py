"""The number format of a training run: the recipe's, or another one where the device has no bfloat16 instructions.

LLaMA-Factory loads weights in the format of the model's files, whatever `bf16` is. So both the recipe's settings and
the format of the weights are changed.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lf_longpo.models.number_format import has_bfloat16, missing_bfloat16, replacement
from lf_longpo.plugin.compat import replace_load_config

if TYPE_CHECKING:
    import torch

_HALF = ("bf16", "fp16", "pure_bf16")


def emulates(settings: Mapping[str, Any]) -> str | None:
    """The type of the device that a recipe trains on here (`cpu`, `cuda`) if it lacks bfloat16, else None."""
    import torch

    accelerator = None if settings.get("use_cpu") else torch.accelerator.current_accelerator(check_available=True)
    device = accelerator.type if accelerator else "cpu"
    return None if has_bfloat16(device) else device


def without_bfloat16(settings: Mapping[str, Any], device: str) -> dict[str, Any]:
    """The recipe for a device without bfloat16: float32 on a CPU, mixed float16 on a GPU."""
    if device == "cpu":
        return {**settings, **dict.fromkeys(_HALF, False)}
    half = any(settings.get(name) for name in _HALF)
    return {**settings, "bf16": False, "pure_bf16": False, "fp16": half}


def load_weights_in(dtype: "torch.dtype") -> None:
    """Lets LLaMA-Factory load weights in `dtype` in this process, whatever the format of the model's files.

    A second call replaces the first one's format.
    """

    def loading_in_format(load_config: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def load(model_args: Any) -> Any:
            config = load_config(model_args)
            for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
                if part is not None:
                    part.dtype = dtype
            model_args.compute_dtype = dtype
            return config

        return load

    replace_load_config(loading_in_format)


def adapt(settings: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Prepares this process for the recipe on its device.

    Returns:
        The settings to train with, and a sentence for the user, or None if they are the recipe's.
    """
    device = emulates(settings)
    if device is None:
        return dict(settings), None
    load_weights_in(replacement(device))
    return without_bfloat16(settings, device), missing_bfloat16(device)
