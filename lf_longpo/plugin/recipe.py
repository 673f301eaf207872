"""A LLaMA-Factory recipe: read with its overrides and parsed by LLaMA-Factory's own parser."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.config.loading import read_settings
from lf_longpo.config.overrides import parse_override
from lf_longpo.errors import UserError, first_line

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
        settings = OmegaConf.to_container(OmegaConf.merge(recipe, changes), resolve=True)
    except (OmegaConfBaseException, TypeError, ValueError) as error:  # such as ${unknown}
        raise UserError(f"{path} cannot be used: {' '.join(str(error).split())}") from None
    return {str(key): value for key, value in settings.items()}


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
        with _all_packages():
            model, data, training, finetuning, _ = get_train_args(dict(settings))
    except Exception as error:  # of any kind, since its parser takes values of any kind
        raise UserError(first_line(error)) from None
    return Arguments(model, data, training, finetuning)


@contextmanager
def _all_packages() -> Iterator[None]:
    """Keeps LLaMA-Factory's parser from stopping at the first optional package that is not installed."""
    from llamafactory.hparams import parser

    ask = parser._check_extra_dependencies
    parser._check_extra_dependencies = lambda *_: None
    try:
        yield
    finally:
        parser._check_extra_dependencies = ask
