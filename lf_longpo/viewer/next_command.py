"""The command that uses the review decisions."""

import os
import shlex
from pathlib import Path

from lf_longpo.run_folder.pair_sets import PairSet

_DEFAULT = Path("dataset_info")


def register_command(pairs: PairSet, only_accepted: bool) -> str:
    """The command that registers the reviewed pairs, for the working directory of this process.

    Args:
        pairs: the set of pairs.
        only_accepted: whether it removes undecided pairs.
    """
    name = Path(pairs.name).stem if pairs.found_as.endswith(".jsonl") else pairs.name
    words = ["longpo", "register", pairs.found_as, "--name", f"{name}_reviewed", "--reviewed"]
    words += ["--only-accepted"] * only_accepted
    if pairs.dataset_dir.absolute() != _DEFAULT.absolute():
        beside = os.path.relpath(pairs.dataset_dir)
        words += ["--dataset-dir", str(pairs.dataset_dir) if beside.startswith("..") else beside]
    return shlex.join(words)
