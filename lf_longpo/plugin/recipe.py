"""A LLaMA-Factory recipe: read with its overrides and parsed by LLaMA-Factory's own parser."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.config.shipped import resolve
from lf_longpo.errors import UserError, first_line
from lf_longpo.plugin.compat import without_package_checks

if TYPE_CHECKING:
    from llamafactory.hparams import DataArguments, FinetuningArguments, ModelArguments, TrainingArguments

# What LLaMA-Factory names the data of each stage; any other stage keeps its own name.
_DATA_OF_STAGE = {"dpo": "rm"}


class Arguments(NamedTuple):
    """A recipe as LLaMA-Factory sees it."""

    model: "ModelArguments"
    data: "DataArguments"
    training: "TrainingArguments"
    finetuning: "FinetuningArguments"

    @property
    def data_stage(self) -> str:
        """What LLaMA-Factory's loader calls the stage: `rm` for pairs, or the stage itself."""
        return _DATA_OF_STAGE.get(self.finetuning.stage, self.finetuning.stage)


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of a recipe with `overrides` (key=value) on top, merged as LLaMA-Factory merges them.

    Raises:
        UserError: the file is missing, is no mapping, or an override is no key=value.
    """
    from omegaconf import DictConfig, OmegaConf

    path = Path(path)
    if not path.is_file() or path.suffix not in (".yaml", ".yml"):
        raise UserError(f"no recipe {path}; name a .yaml file")
    for override in overrides:
        if "=" not in override or override.startswith(("-", "=")):
            raise UserError(f"{override!r} must have the form key=value, as in learning_rate=5e-6")
    try:
        recipe = OmegaConf.load(path)
        if not isinstance(recipe, DictConfig):
            raise UserError(f"{path} must hold settings, one `key: value` a line")
        merged: Any = OmegaConf.to_container(OmegaConf.merge(recipe, OmegaConf.from_cli(list(overrides))), resolve=True)
    except UserError:
        raise
    except Exception as error:  # yaml's and omegaconf's many kinds, all with the line in their message
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    settings = {str(key): value for key, value in merged.items()}
    if isinstance(settings.get("deepspeed"), str):
        settings["deepspeed"] = str(resolve(settings["deepspeed"]))
    return settings


def parse_recipe(settings: dict[str, Any]) -> Arguments:
    """LLaMA-Factory's own parsing and cross-checks, as of a run without GPUs, so that any machine can do it.

    Optional packages are taken as installed; `missing_packages` reports those that are not.

    Raises:
        UserError: LLaMA-Factory refuses the settings, in its own words.
    """
    os.environ["LLAMAFACTORY_VERBOSITY"] = "WARN"
    from llamafactory.hparams import get_train_args

    logging.getLogger("llamafactory").setLevel(logging.ERROR)
    try:
        with without_package_checks():
            model, data, training, finetuning, _ = get_train_args(dict(settings))
    except Exception as error:  # of any kind, since its parser takes values of any kind
        raise UserError(first_line(error)) from None
    return Arguments(model, data, training, finetuning)
