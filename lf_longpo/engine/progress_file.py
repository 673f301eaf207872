"""progress.json: how far a run is, in its folder, so that another process can show it. It stays after a kill."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lf_longpo.engine.progress import Progress

PROGRESS = "progress.json"
SECONDS_BETWEEN_WRITES = 5.0

_PROCESS = ("pid", "host", "started", "updated")
_KEYS = {
    *_PROCESS,
    *("work", "items", "questions", "ended", "failed", "outcomes", "steps", "total"),
    *("seconds", "seconds_left", "new_tokens", "speed", "calls", "cost", "batches"),
}


def read_progress(folder: Path) -> dict[str, Any]:
    """The progress.json of a run; empty if there is none that can be read, as in runs of other versions."""
    try:
        progress = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return progress if isinstance(progress, dict) and progress.keys() >= _KEYS else {}


@contextmanager
def saved(progress: Progress, folder: Path) -> Iterator[None]:
    """Writes the progress to the folder at the begin, every few seconds, and at the end of the block.

    Args:
        progress: of the run.
        folder: the run's, which it has locked.
    """
    started, earlier = _now(), read_progress(folder).get("speed")
    ended = threading.Event()

    def write() -> None:
        snapshot = progress.snapshot()
        if not snapshot["new_tokens"] and earlier:  # this start made no call, so the last measured speed stays
            snapshot["speed"] = earlier
        process = {"pid": os.getpid(), "host": socket.gethostname(), "started": started, "updated": _now()}
        _replace(folder / PROGRESS, process | snapshot)

    def write_until_the_end() -> None:  # in a thread: a local model may block the event loop for minutes
        while not ended.wait(SECONDS_BETWEEN_WRITES):
            write()

    write()
    thread = threading.Thread(target=write_until_the_end, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        write()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _replace(path: Path, content: dict[str, Any]) -> None:
    """Replaces the file atomically.

    Not `write_whole`: the temporary file has a fixed name, so that kills leave one at most, and nothing waits for the
    disk. A file that cannot be written does not end the run: the journals report a full disk.
    """
    temporary = path.with_name(f".{path.name}")
    with suppress(OSError):
        temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        temporary.replace(path)
