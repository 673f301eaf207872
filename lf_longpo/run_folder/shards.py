"""The shards of a run on a Ray cluster, as they lie in its folder. Each is the folder of an ordinary run."""

import re
from pathlib import Path

SHARDS = "shards"
"""The folder in a run's folder that holds its shards."""
MANIFEST = "shards.json"
"""The file in that folder with the questions at which the shards begin and end; written before the first begins."""

_SHARD = re.compile(r"\d+-\d+")


def shard_folders(folder: Path) -> list[Path]:
    """The folders of the shards, in the order of their questions."""
    return sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))
