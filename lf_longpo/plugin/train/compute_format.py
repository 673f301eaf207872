"""The number format of a training run: what the recipe says, unless the device would have to emulate it.

LLaMA-Factory loads weights in the format of the model's files, whatever `bf16` says, so that both the recipe's settings
and the weights' format are changed.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lf_longpo.models.number_format import has_bfloat16, missing_bfloat16, replacement

if TYPE_CHECKING:
    import torch

_HALF = ("bf16", "fp16", "pure_bf16")


def emulates(settings: Mapping[str, Any]) -> str | None:
    """The type of the device that a recipe trains on here (`cpu`, `cuda`), where it lacks bfloat16; else None."""
    import torch

    if settings.get("use_cpu") or not torch.accelerator.is_available():
        device = "cpu"
    else:
        device = torch.accelerator.current_accelerator().type
    return None if has_bfloat16(device) else device


def without_bfloat16(settings: Mapping[str, Any], device: str) -> dict[str, Any]:
    """The recipe for a device without bfloat16: float32 on a CPU, mixed float16 on a GPU."""
    if device == "cpu":
        return {**settings, **dict.fromkeys(_HALF, False)}
    half = any(settings.get(name) for name in _HALF)
    return {**settings, "bf16": False, "pure_bf16": False, "fp16": half}


def load_weights_in(dtype: "torch.dtype") -> None:
    """From now on, LLaMA-Factory loads weights of this process in `dtype`, whatever the format of the model's files."""
    # Before the loader, which imports TRL: this module changes what TRL takes for an installed package.
    import llamafactory.extras.packages  # noqa: F401
    from llamafactory.model import loader

    load_config = loader.load_config

    def load_config_in_format(model_args: Any) -> Any:
        config = load_config(model_args)
        for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
            if part is not None:
                part.dtype = dtype
        model_args.compute_dtype = dtype
        return config

    loader.load_config = load_config_in_format


def adapt(settings: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Prepares this process for the recipe on its device.

    Returns:
        The settings to train with, and a sentence for the user where they differ from the recipe's.
    """
    device = emulates(settings)
    if device is None:
        return dict(settings), None
    load_weights_in(replacement(device))
    return without_bfloat16(settings, device), missing_bfloat16(device)
