"""Checks the folder of a model, an adapter, an embedder or a tokenizer by its files alone.

Nothing heavy is imported and no weights are read. Hub names are not checked here; a wrong one fails on loading.
"""

import json
import os
from pathlib import Path
from typing import Any

from lf_longpo.config import ChatConfig
from lf_longpo.errors import UserError
from lf_longpo.models.embedded import is_embedded

# Folders where scripts/setup.sh and the shipped recipes put models. Names in them are paths even before they exist.
_OUR_FOLDERS = ("models", "saves")
_SETUP = "bash scripts/setup.sh"
_SETUP_MAKES = "models/smollm2-135m"
# params.json is Mistral's own format, which vLLM reads.
_CONFIGS = ("config.json", "params.json")
_ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
# Files next to the weights that have the same endings but are not weights.
_NO_WEIGHTS = ("adapter_", "training_args", "optimizer", "scheduler", "rng_state")
_TOKENIZERS = ("tokenizer*", "vocab*", "merges.txt", "*.tiktoken", "*.model", "tekken.json")
_LFS_POINTER = b"version https://git-lfs"


def is_path(name: str) -> bool:
    """Whether a model's name is a path on this machine, and not a hub model or an embedded one.

    A path begins with `.`, `~` or `/`, has more than two parts, exists, or begins with a folder that exists here. If
    only the last is true and the hub's cache has the name, it is a hub model.
    """
    first, slash, _ = name.partition("/")
    if name.startswith((".", "~", "/")) or name.count("/") > 1 or os.path.lexists(name):
        return not is_embedded(name)
    if not slash:
        return False
    return first in _OUR_FOLDERS or (Path(first).is_dir() and not _is_cached(name))


def model_problem(
    name: str, setting: str, adapter_setting: str, made_by: str = "", needs_weights: bool = True
) -> str | None:
    """The problem of a model and its fix, or None.

    Args:
        name: a folder, a hub name or an embedded model.
        setting: the setting that names the model, for the fix.
        adapter_setting: the setting for an adapter of that model, for the fix.
        made_by: the command that makes this folder, if one is known.
        needs_weights: False if only the configuration is read.
    """
    if not is_path(name):
        return None
    fix = _fix(name, made_by, f"set {setting} to a model folder or a hub name")
    if absent := _absent(name):
        return f"{absent}; {fix}"
    folder = Path(name)
    config = next((folder / file for file in _CONFIGS if (folder / file).is_file()), None)
    if config is None:
        if (folder / _ADAPTER_CONFIG).is_file():
            return _adapter_as_model(name, setting, adapter_setting)
        return f"{name} is not a model folder: it has no config.json; {fix}"
    if not isinstance(_read_json(config), dict):
        return f"{config} cannot be read as JSON; copy or download the model again"
    return _weights_problem(folder, fix) if needs_weights else None


def adapter_problem(name: str, setting: str, model_setting: str, made_by: str = "") -> str | None:
    """The problem of a LoRA adapter and its fix, or None.

    Args:
        name: a folder or a hub name.
        setting: the setting that names the adapter, for the fix.
        model_setting: the setting that names its base model, for the fix.
        made_by: the command that makes this folder, if one is known.
    """
    if not is_path(name):
        return None
    fix = _fix(name, made_by, f"set {setting} to the output_dir of a LoRA training, or remove it")
    if absent := _absent(name):
        return f"{absent}; {fix}"
    folder = Path(name)
    if not (folder / _ADAPTER_CONFIG).is_file():
        if (folder / "config.json").is_file():
            return f"{name} is a whole model, not an adapter; set {model_setting}: {name} and remove {setting}"
        return f"{name} is not an adapter folder: it has no {_ADAPTER_CONFIG}; {fix}"
    if not isinstance(_read_json(folder / _ADAPTER_CONFIG), dict):
        return f"{folder / _ADAPTER_CONFIG} cannot be read as JSON; copy the adapter again"
    if not any((folder / f"adapter_model{ending}").is_file() for ending in _WEIGHTS):
        return f"{name} has no weights (adapter_model.safetensors); {fix}"
    return None


def embedder_problem(name: str, setting: str) -> str | None:
    """The problem of an embedding model and its fix, or None.

    Args:
        name: a folder, a hub name or an embedded model.
        setting: the setting that names it, for the fix.
    """
    if (Path(name) / "modules.json").is_file():  # sentence-transformers' own; its parts may lie in subfolders
        return None
    return model_problem(name, setting, "no adapter")


def tokenizer_problem(name: str, setting: str, made_by: str = "") -> str | None:
    """The problem of a tokenizer's folder and its fix, or None.

    Args:
        name: a folder, a hub name or an embedded model.
        setting: the setting that names it, for the fix.
        made_by: the command that makes this folder, if one is known.
    """
    if not is_path(name):
        return None
    fix = _fix(name, made_by, f"set {setting} to a model folder or a hub name")
    if absent := _absent(name):
        return f"{absent}; {fix}"
    if not any(file.is_file() for pattern in _TOKENIZERS for file in Path(name).glob(pattern)):
        return f"{name} has no tokenizer (tokenizer.json); {fix}"
    return None


def check_chat_folders(config: ChatConfig, section: str = "") -> None:
    """Checks the folders of a chat model in this process, before it is loaded.

    Args:
        config: the model's.
        section: its section with a dot, such as `judge.`, for the error.

    Raises:
        UserError: the model or the adapter cannot be loaded.
    """
    model, adapter = f"{section}model", f"{section}adapter"
    if problem := model_problem(config.model, model, adapter):
        raise UserError(f"{model}: {problem}")
    if config.adapter and (problem := adapter_problem(config.adapter, adapter, model)):
        raise UserError(f"{adapter}: {problem}")


def base_model(adapter: str) -> str:
    """The base model that an adapter's folder names; empty if unknown."""
    config = _read_json(Path(adapter) / _ADAPTER_CONFIG)
    return str(config.get("base_model_name_or_path") or "") if isinstance(config, dict) else ""


def quantization(name: str) -> str:
    """Quantization of a model folder's weights (`gptq`, `awq`, ...); empty if there is none."""
    config = _read_json(Path(name) / "config.json")
    settings = config.get("quantization_config") if isinstance(config, dict) else None
    return str(settings.get("quant_method") or "") if isinstance(settings, dict) else ""


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        return False


def _absent(name: str) -> str:
    """Why there is no folder of this name; empty if it exists."""
    path = Path(name)
    if path.is_dir():
        return ""
    if path.exists():
        return f"{name} is a file, not a folder"
    if name.startswith("~"):
        return f"{name} does not exist, because `~` is not expanded in settings; write {path.expanduser()}"
    for link in (path, *path.parents):
        if link.is_symlink() and not link.exists():
            return f"{link} is a symbolic link to {os.readlink(link)}, which does not exist"
    return f"{name} does not exist"


def _fix(name: str, made_by: str, otherwise: str) -> str:
    command = _SETUP if os.path.normpath(name) == _SETUP_MAKES else made_by
    return f"make it with `{command}`" if command else otherwise


def _adapter_as_model(name: str, setting: str, adapter_setting: str) -> str:
    base = base_model(name)
    problem = f"{name} is a LoRA adapter, not a whole model"
    if base and is_path(base) and (absent := _absent(base)):
        base_fix = _fix(base, "", f"set {setting} to the folder or hub name of that base model")
        return f"{problem}, and its base model is missing: {absent}; {base_fix}, and set {adapter_setting}: {name}"
    return f"{problem}; set {setting}: {base or 'its base model'} and {adapter_setting}: {name}"


def _weights_problem(folder: Path, fix: str) -> str | None:
    files = [file for file in folder.iterdir() if file.suffix in _WEIGHTS and not file.name.startswith(_NO_WEIGHTS)]
    weights = [file for file in files if file.is_file()]
    for index in folder.glob("*.index.json"):
        named = _read_json(index)
        parts = sorted(set(named.get("weight_map", {}).values())) if isinstance(named, dict) else []
        if missing := [part for part in parts if not (folder / part).is_file()]:
            return (
                f"{folder} lacks {len(missing)} of the {len(parts)} weight files that {index.name} names "
                f"({missing[0]}); copy or download the model again"
            )
    if not weights:
        return f"{folder} has no weights (model.safetensors); {fix}"
    for file in weights:
        with file.open("rb") as opened:
            if opened.read(len(_LFS_POINTER)) == _LFS_POINTER:
                return f"{file} is a Git LFS pointer, not the weights; run `git lfs pull` in {folder}"
    return None


def _read_json(path: Path) -> Any:
    """The file's content, or None if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
