"""The data card of an exported data set on the hub: what the rows are, and how the run made them."""

from pathlib import Path

import yaml

from lf_longpo import __version__
from lf_longpo.run_folder.contents import RunFolder

_METHODS = {"longmab": ("LongMab-PO", "2508.13993"), "longreward": ("LongReward", "2410.21252")}
# Settings that determine the data; none of them contains a machine, a folder or a key.
_SETTINGS = ("method", "longmab", "longreward", "pairs", "seed")


def data_card(name: str, file: Path, rows: int, form: str, run: RunFolder | None) -> str:
    """The README.md of a repository on the hub.

    Args:
        name: the name of the repository.
        file: the exported file.
        rows: the number of rows in it.
        form: the description of its format.
        run: the run that made the rows; None if it is unknown.
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
        used = ", ".join(f"{role} {Path(model.model).name}" for role, model in models.items() if model)
        parts.append(f"Made with {method} ([arXiv {paper}](https://arxiv.org/abs/{paper})); models: {used}.\n")
        if summary := run.summary():
            parts.append(f"The run made {summary['pairs']:,} pairs from {summary['questions']:,} questions.\n")
        keep = [name for name in _SETTINGS if name not in _METHODS or name == config.method]
        settings = {name: value for name, value in config.model_dump(mode="json").items() if name in keep}
        for name in ("prompt", "probe_prompt", "prompts"):
            if (section := settings[config.method]).get(name):
                section[name] = Path(section[name]).name  # the path can name a private folder
        parts.append(f"Settings:\n\n```yaml\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}```\n")
    parts.append("Before you publish this data set, add the licence and the origin of its documents.\n")
    return "\n".join(parts)
