"""Tells apart the LoRA adapters that successive trainings save into the same folder."""

import hashlib
from pathlib import Path


def fingerprint(adapter: str | None) -> str:
    """A hash of the adapter's weights and settings; empty without an adapter, or for a hub name."""
    folder = Path(adapter) if adapter else None
    files = sorted(path for path in folder.glob("adapter_*") if path.is_file()) if folder else []
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16] if digests else ""
