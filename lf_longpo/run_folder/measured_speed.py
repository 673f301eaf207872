"""How fast the models of a configuration were in an earlier run of the same kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lf_longpo.config.yaml_text import parse_yaml
from lf_longpo.engine.progress_file import PROGRESS, read_progress
from lf_longpo.engine.session import RunConfig
from lf_longpo.files.run_dir import CONFIG
from lf_longpo.models.usage import Speed
from lf_longpo.run_folder.run_kind import kind_of_settings

_MODELS = ("policy", "judge", "model", "against")


def measured_speed(config: RunConfig) -> Speed | None:
    """The speed of the run in `output_dir`, else that of the latest run next to it with the same kind and servers.

    A run of another kind has other shares of prompt and new tokens, so that its speed says little.

    Args:
        config: the run's.

    Returns:
        New tokens per second, with the time for prompts in it; None if no such run has made calls.
    """
    own, wanted = config.output_dir, _identity(config.model_dump(mode="json"))
    others = sorted(own.parent.glob(f"*/{PROGRESS}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in (own, *(path.parent for path in others)):
        new = float(read_progress(folder).get("speed", {}).get("new_tokens_per_second", 0.0))
        if new > 0 and _identity(_settings(folder)) == wanted:
            return Speed(new, None, f"measured in {folder}")
    return None


def _identity(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be the same: the kind of run, and the models and their servers."""
    kind = kind_of_settings(settings)
    models = [settings.get(name) or {} for name in _MODELS]
    servers = [(model.get("model"), model.get("backend"), model.get("base_url")) for model in models]
    return (kind and (kind.command, kind.method), *servers)


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = parse_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}
