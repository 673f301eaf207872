"""The reference model's log-probability of each response, computed once and kept over epochs and resumed runs."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lf_longpo.files.journal import Journal, read_rows

_FIELDS = ("id", "logp")


class ReferenceLogps:
    """Stores log-probabilities by the digest of the tokens of prompt and response.

    Every process that writes has its own file in `folder`. At the start all files are read; `share` exchanges new
    values between the processes of a run. Rows with other fields, which earlier releases wrote for pairs, are ignored.

    Args:
        folder: in the run's output folder; created if it is missing.
        identity: of the reference model and its number format; values of another identity are not used.
        process: number of this process.
        writes: whether this process writes; of processes that get the same pairs, one does.
    """

    def __init__(self, folder: Path, identity: Sequence[Any], process: int, writes: bool = True) -> None:
        name = hashlib.sha256(json.dumps(identity, default=str).encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, float] = {}
        for path in sorted(folder.glob(f"{name}.*.jsonl")):
            self._known |= {row["id"]: row["logp"] for row in read_rows(path, _FIELDS)}
        self._new: dict[str, float] = {}
        self._journal = Journal(folder / f"{name}.{process}.jsonl", _FIELDS) if writes else None

    def find(self, digests: Sequence[str], device: torch.device) -> torch.Tensor | None:
        """The log-probabilities of responses, (R,), or None where any is unknown."""
        if not all(digest in self._known for digest in digests):
            return None
        return torch.tensor([self._known[digest] for digest in digests], dtype=torch.float32, device=device)

    def keep(self, digests: Sequence[str], logps: torch.Tensor) -> None:
        """Stores the log-probabilities of responses, (R,); those that are known already stay as they are."""
        for digest, logp in zip(digests, logps.tolist(), strict=True):
            if digest not in self._known:
                self._known[digest] = self._new[digest] = logp
                if self._journal is not None:
                    self._journal.append({"id": digest, "logp": logp})

    def share(self) -> None:
        """Sends the new values of each process to all others; every process must call it."""
        from accelerate.utils import gather_object

        for found in gather_object([self._new]):
            self._known |= found
        self._new = {}


def model_identity(path: str) -> list[Any]:
    """What identifies a model: its name, and for a folder the sizes and times of its files."""
    folder = Path(path)
    files = sorted(file for file in folder.glob("*") if file.suffix in (".safetensors", ".bin", ".json"))
    return [path, [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]]
