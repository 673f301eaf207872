"""The settings of each command, and the command that a settings file belongs to."""

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, get_args

import lf_longpo.config as configs
from lf_longpo.config.base import fields_of, section_of
from lf_longpo.config.loading import load_config, read_settings
from lf_longpo.errors import UserError

C = TypeVar("C", bound=configs.Config)

_SETTINGS: dict[str, type[configs.Config]] = {
    "longpo generate": configs.GenerateConfig,
    "longpo evaluate longqa": configs.LongQAConfig,
    "longpo evaluate longbench": configs.LongBenchConfig,
    "longpo evaluate longbench-chat": configs.LongBenchChatConfig,
    "longpo evaluate winrate": configs.WinRateConfig,
    "longpo evaluate judge": configs.EvaluateJudgeConfig,
    "longpo synthesize multihop": configs.MultiHopConfig,
    "longpo synthesize needle": configs.NeedleConfig,
    "longpo synthesize self-instruct": configs.SelfInstructConfig,
    "longpo synthesize mix": configs.MixConfig,
    "longpo score": configs.ScoreConfig,
}
# `longpo score` takes these on the command line, so that its file may lack them.
_OF_SCORE = {"responses", "output_dir"}
# These take settings on the command line only.
_WITHOUT_FILE: dict[str, type[configs.Config]] = {"longpo chat": configs.DocumentChatConfig}
# Every LLaMA-Factory recipe has the first key; a training recipe has one of the others.
_MODEL = "model_name_or_path"
_TRAINING = {"stage", "do_train", "do_eval", "do_predict", "dataset", "eval_dataset"}


def settings_commands(by_method: bool = False) -> dict[str, type[configs.Config]]:
    """The commands that take a settings file, without `longpo`, and their settings.

    Args:
        by_method: `generate longmab` and `generate longreward` instead of `generate`.
    """
    kinds = {command.removeprefix("longpo "): kind for command, kind in _SETTINGS.items()}
    if by_method:
        kinds = {
            f"{command} {_method_of(variant)}" if issubclass(variant, configs.GenerateConfig) else command: variant
            for command, kind in kinds.items()
            for variant in kind.variants()
        }
    return kinds


def _method_of(kind: type[configs.GenerateConfig]) -> str:
    return str(get_args(kind.model_fields["method"].annotation)[0])


def settings_of(words: Sequence[str], kinds: Mapping[str, type[configs.Config]]) -> type[configs.Config]:
    """The settings of a command among `kinds`.

    Raises:
        UserError: no such command takes a settings file.
    """
    name = " ".join(words)
    if name in kinds:
        return kinds[name]
    near = difflib.get_close_matches(name, kinds, 1)
    fix = f"did you mean {near[0]}?" if near else f"use {', '.join(kinds)}"
    raise UserError(f"{name} is not a command with a settings file; {fix}")


def load_settings(kind: type[C], path: str | None, overrides: list[str]) -> C:
    """The settings of a command: its YAML file with overrides.

    Raises:
        UserError: the file belongs to another command, or a setting is wrong.
    """
    command = next(name for name, settings in _SETTINGS.items() if settings is kind)
    refuse_other_files(command, path)
    return load_config(kind, path, overrides)


def refuse_other_files(command: str, path: str | Path | None) -> None:
    """Refuses a file that belongs to another command. A file that cannot be read is left to the command.

    Args:
        command: as the user types it, such as `longpo generate`; a command without settings takes training recipes.
        path: the file, or None if there is none.

    Raises:
        UserError: the keys of the file are those of another command.
    """
    keys = _keys(path)
    if command in _SETTINGS and keys <= set(fields_of(_SETTINGS[command])):
        return
    fitting = _commands(keys)
    if fitting and command not in fitting:
        names = " or ".join(f"`{name} {path}`" for name in fitting)
        raise UserError(f"{path} is not a file for `{command}`; run {names}, or name another file")


def find_setting(command: str, name: str) -> str | None:
    """The key of the setting with this name, with its section: `longmab.rounds` for `rounds`; or None.

    Args:
        command: as the user types it, such as `longpo generate`.
        name: with or without its section.
    """
    kind = (_SETTINGS | _WITHOUT_FILE).get(command)
    keys = _all_keys(kind) if kind else []
    return next((key for key in keys if f".{key}".endswith(f".{name}")), None)


def _all_keys(kind: type[configs.Config]) -> list[str]:
    """The keys of settings and of their sections, those of the settings first."""
    sections = ((name, section_of(field)) for name, field in fields_of(kind).items())
    below = [f"{name}.{key}" for name, section in sections if section for key in _all_keys(section)]
    return [*fields_of(kind), *below]


def _commands(keys: set[str]) -> list[str]:
    """The commands that take a file with these keys."""
    if _MODEL in keys:
        if keys & _TRAINING:
            return ["longpo train", "longpo check"]
        return ["llamafactory-cli export" if "export_dir" in keys else "llamafactory-cli api", "longpo check"]
    return [name for name, kind in _SETTINGS.items() if keys and _required(kind) <= keys <= set(fields_of(kind))]


def _required(kind: type[configs.Config]) -> set[str]:
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    return required - _OF_SCORE if kind is configs.ScoreConfig else required


def _keys(path: str | Path | None) -> set[str]:
    with suppress(UserError):
        return {str(key) for key in read_settings(Path(path))} if path is not None else set()
    return set()
