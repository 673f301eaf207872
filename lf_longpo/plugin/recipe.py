"""A LLaMA-Factory recipe: its settings with overrides, and what LLaMA-Factory's own parser makes of them."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from lf_longpo.config.loading import read_settings
from lf_longpo.config.overrides import parse_override
from lf_longpo.config.shipped import resolve
from lf_longpo.errors import UserError, first_line
from lf_longpo.plugin.compat import without_package_checks

if TYPE_CHECKING:
    from llamafactory.hparams import DataArguments, FinetuningArguments, ModelArguments, TrainingArguments

# LLaMA-Factory's name for the data of a stage; other stages use their own name.
_DATA_OF_STAGE = {"dpo": "rm"}


class Arguments(NamedTuple):
    """A recipe in LLaMA-Factory's own classes."""

    model: "ModelArguments"
    data: "DataArguments"
    training: "TrainingArguments"
    finetuning: "FinetuningArguments"

    @property
    def data_stage(self) -> str:
        """The stage as LLaMA-Factory's data loader names it: `rm` for pairs, otherwise the stage itself."""
        stage: str = self.finetuning.stage
        return _DATA_OF_STAGE.get(stage, stage)


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of a recipe, with `overrides` (key=value) merged into them as LLaMA-Factory merges them.

    Raises:
        UserError: the file is missing or is not a YAML mapping, or an override does not have the form key=value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = Path(path)
    if not path.is_file() or path.suffix not in (".yaml", ".yml"):
        raise UserError(f"there is no recipe {path}; name a .yaml file")
    recipe = read_settings(path)
    changes = OmegaConf.create()
    try:
        for key, value in map(parse_override, overrides):
            OmegaConf.update(changes, key, value)
        settings = cast(dict[Any, Any], OmegaConf.to_container(OmegaConf.merge(recipe, changes), resolve=True))
    except (OmegaConfBaseException, TypeError, ValueError) as error:  # such as ${unknown}
        raise UserError(f"{path} cannot be used: {' '.join(str(error).split())}") from None
    if isinstance(settings.get("deepspeed"), str):
        settings["deepspeed"] = str(resolve(settings["deepspeed"]))
    return {str(key): value for key, value in settings.items()}


def parse_recipe(settings: dict[str, Any]) -> Arguments:
    """Parses and checks settings with LLaMA-Factory's own parser, as for a run without GPUs.

    Optional packages count as installed; `missing_packages` reports those that are not.

    Raises:
        UserError: LLaMA-Factory refuses the settings; the message is its own.
    """
    os.environ["LLAMAFACTORY_VERBOSITY"] = "WARN"
    from llamafactory.hparams import get_train_args

    logging.getLogger("llamafactory").setLevel(logging.ERROR)
    try:
        with without_package_checks():
            model, data, training, finetuning, _ = get_train_args(dict(settings))
    except Exception as error:  # its parser raises errors of many kinds
        raise UserError(first_line(error)) from None
    return Arguments(model, data, training, finetuning)
