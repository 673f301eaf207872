"""Telling one training's LoRA adapter from the next one's in the same folder."""

import hashlib
from pathlib import Path


def fingerprint(adapter: str | None) -> str:
    """A hash of the adapter's weights; empty without an adapter, or for one that is no local folder."""
    weights = Path(adapter) / "adapter_model.safetensors" if adapter else None
    if weights is None or not weights.is_file():
        return ""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
