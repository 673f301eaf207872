"""Which command makes a folder or a data set that a recipe needs: read from the recipes next to it."""

from pathlib import Path
from typing import Any

import yaml

from lf_longpo.config.shipped import shown


def folder_maker(folder: str, recipe: Path) -> str:
    """The command that trains or exports the model of a folder, where a recipe next to `recipe` does; or nothing."""
    for path, settings in _neighbours(recipe):
        if "model_name_or_path" in settings:
            if settings.get("output_dir") == folder:
                return f"longpo train {path}"
            if settings.get("export_dir") == folder:
                return f"llamafactory-cli export {path}"
    return ""


def dataset_maker(name: str, recipe: Path) -> str:
    """The command that makes a registered data set, where a recipe next to `recipe` does; or nothing."""
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
