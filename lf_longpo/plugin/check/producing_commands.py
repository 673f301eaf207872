"""The command that makes a model folder or a data set of a recipe, read from the recipes next to it."""

from pathlib import Path
from typing import Any

import yaml

from lf_longpo.config.shipped import shown


def command_for_folder(folder: str, recipe: Path) -> str:
    """The command that trains or exports the model in a folder; empty if no recipe next to `recipe` does."""
    for path, settings in _neighbours(recipe):
        if "model_name_or_path" in settings:
            if settings.get("output_dir") == folder:
                return f"longpo train {path}"
            if settings.get("export_dir") == folder:
                return f"llamafactory-cli export {path}"
    return ""


def command_for_dataset(name: str, recipe: Path) -> str:
    """The command that makes a registered data set; empty if no recipe next to `recipe` does."""
    for path, settings in _neighbours(recipe):
        if settings.get("dataset_name") == name:
            return f"longpo {'generate' if 'method' in settings else 'synthesize self-instruct'} {path}"
    return ""


def _neighbours(recipe: Path) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(recipe.parent.glob("*.yaml")):
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(settings, dict) and path != recipe:
            found.append((shown(path), settings))
    return found
