"""Which command a configuration file is for, by its keys: the answer to a file that is given to another command."""

from pathlib import Path
from typing import Any

import yaml

import lf_longpo.config as configs
from lf_longpo.errors import UserError

_KINDS: dict[str, type[configs.Config]] = {
    "longpo generate": configs.GenerateConfig,
    "longpo evaluate longqa": configs.LongQAConfig,
    "longpo evaluate longbench": configs.LongBenchConfig,
    "longpo evaluate longbench-chat": configs.LongBenchChatConfig,
    "longpo evaluate winrate": configs.WinRateConfig,
    "longpo synthesize multihop": configs.MultiHopConfig,
    "longpo synthesize needle": configs.NeedleConfig,
    "longpo synthesize self-instruct": configs.SelfInstructConfig,
    "longpo synthesize mix": configs.MixConfig,
    "longpo score": configs.ScoreConfig,
}
# LLaMA-Factory's recipes all have the first key; those that train have one of the others.
_MODEL = "model_name_or_path"
_TRAINING = {"stage", "do_train", "do_eval", "do_predict", "dataset", "eval_dataset"}


def refuse_other_kinds(command: str, path: str | Path | None) -> None:
    """Ends a command that was given a file for another one; what it cannot read is left to the command itself.

    Args:
        command: as it is typed, e.g. `longpo generate`; one that is not a key of ours takes LLaMA-Factory's recipes.
        path: the file, None where the command was given none.

    Raises:
        UserError: the file's keys are those of another command.
    """
    keys = _keys(path)
    if command in _KINDS and keys <= _known(_KINDS[command]):
        return
    fitting = _commands(keys)
    if fitting and command not in fitting:
        names = " or ".join(f"`{name} {path}`" for name in fitting)
        raise UserError(f"{path} is no file for `{command}`; run {names}, or name another file")


def _commands(keys: set[str]) -> list[str]:
    """The commands that take a file with these keys."""
    if _MODEL in keys:
        if keys & _TRAINING:
            return ["longpo train", "longpo check"]
        return ["llamafactory-cli export" if "export_dir" in keys else "llamafactory-cli api", "longpo check"]
    return [name for name, kind in _KINDS.items() if keys and _required(kind) <= keys <= _known(kind)]


def _known(kind: type[configs.Config]) -> set[str]:
    return {name for variant in kind.variants() for name in variant.model_fields}


def _required(kind: type[configs.Config]) -> set[str]:
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    return required - {"responses", "output_dir"} if kind is configs.ScoreConfig else required


def _keys(path: str | Path | None) -> set[str]:
    try:
        data: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig")) if path is not None else None
    except (OSError, ValueError, yaml.YAMLError):
        return set()
    return {str(key) for key in data} if isinstance(data, dict) else set()
