"""A run's folder: one run at a time works in it, and only ever with the settings it was begun with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from lf_longpo.config import Config
from lf_longpo.errors import UserError
from lf_longpo.journal import write_whole

# What may change between two starts of one run: where models are reached and how fast, not what they are asked.
# The input may be another file: each question's own digest tells whether it is still the same.
_FREE = {
    "input",
    "input_split",
    "output_dir",
    "dataset_dir",
    "dataset_name",
    "max_failure_rate",
    "baseline",
    "base_url",
    "api_key_env",
    "max_concurrency",
    "timeout",
    "max_retries",
    "trust_remote_code",
    "batch_size",
}


def changed_settings(config: Config, output_dir: Path) -> dict[str, tuple[Any, Any]]:
    """Settings that determine results and differ from those that `output_dir` was begun with: (then, now) by name."""
    saved = output_dir / "config.yaml"
    if not saved.is_file():
        return {}
    then = _flat(yaml.safe_load(saved.read_text(encoding="utf-8")) or {})
    now = _flat(config.model_dump(mode="json"))
    names = [name for name in {**then, **now} if name.rpartition(".")[2] not in _FREE]
    return {name: (then.get(name), now.get(name)) for name in names if then.get(name) != now.get(name)}


def refuse_changes(changed: dict[str, tuple[Any, Any]], output_dir: Path) -> None:
    """Refuses to mix results of two configurations in one folder.

    Raises:
        UserError: something changed; the message names what.
    """
    if changed:
        faults = "; ".join(f"{name} was {then!r} and is now {now!r}" for name, (then, now) in changed.items())
        raise UserError(
            f"{output_dir} holds a run with other settings: {faults}; set another output_dir or put it back"
        )


@contextmanager
def open_run(config: Config, output_dir: Path) -> Iterator[None]:
    """Makes the folder, writes its config.yaml and keeps other runs out while the block lasts.

    Raises:
        UserError: another process works in the folder.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another run is working in {output_dir}; wait for it or set another output_dir") from None
    with lock:
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_whole(output_dir / "config.yaml", [text])
        try:
            yield
        finally:
            lock.release()


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
