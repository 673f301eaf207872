"""The data card of an exported data set, for the hub: what the rows are, and how the run made them."""

from pathlib import Path

import yaml

from lf_longpo import __version__
from lf_longpo.run_folder.contents import RunFolder

_METHODS = {"longmab": ("LongMab-PO", "2508.13993"), "longreward": ("LongReward", "2410.21252")}
# Settings that make the data what they are; none of them names a machine, a folder or a key.
_TOLD = ("method", "longmab", "longreward", "pairs", "seed")


def data_card(name: str, file: Path, rows: int, form: str, run: RunFolder | None) -> str:
    """A README.md for a hub repository.

    Args:
        name: of the data set.
        file: the exported one.
        rows: in it.
        form: what they are.
        run: that made them, if it is known.
    """
    head = {
        "tags": ["preference", "long-context", "lf-longpo"],
        "configs": [{"config_name": "default", "data_files": file.name}],
    }
    parts = [f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {name}\n"]
    parts.append(f"{rows:,} rows: {form}. Written by lf-longpo {__version__}.\n")
    if run:
        config = run.config
        method, paper = _METHODS[config.method]
        models = {"policy": config.policy, "judge": getattr(config, "judge", None)}
        told = ", ".join(f"{role} {Path(model.model).name}" for role, model in models.items() if model)
        parts.append(f"Made by {method} ([arXiv {paper}](https://arxiv.org/abs/{paper})): {told}.\n")
        if summary := run.summary():
            parts.append(f"{summary['pairs']:,} pairs came of {summary['questions']:,} questions.\n")
        keep = [one for one in _TOLD if one not in _METHODS or one == config.method]
        settings = {one: value for one, value in config.model_dump(mode="json").items() if one in keep}
        for name in ("prompt", "probe_prompt", "prompts"):
            if (section := settings[config.method]).get(name):
                section[name] = Path(section[name]).name  # may be somebody's folder
        parts.append(f"Settings:\n\n```yaml\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}```\n")
    parts.append("Licence and origin of the documents: to be told by who publishes this.\n")
    return "\n".join(parts)
