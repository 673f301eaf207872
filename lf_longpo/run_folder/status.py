"""How far a run is: while it goes on, after a kill, after its end, on Ray. Reads only, and is quick for long runs.

A running process writes what only it knows to progress.json. Journals are counted by their lines, not parsed: a run of
10,000 questions can have gigabytes of them.
"""

import json
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lf_longpo.data.pairs import PAIRS
from lf_longpo.engine.failures import FAILURES, Causes
from lf_longpo.engine.outcomes import Outcome
from lf_longpo.engine.progress_file import PROGRESS, read_progress
from lf_longpo.errors import UserError
from lf_longpo.files.journal import read_rows
from lf_longpo.files.run_dir import CONFIG, is_locked
from lf_longpo.longmab.rollout_files import PROBES
from lf_longpo.models.cache import StageTotals
from lf_longpo.run_folder.contents import read_stages
from lf_longpo.run_folder.run_kind import RunKind, Stage, kind_of
from lf_longpo.run_folder.shards import MANIFEST, SHARDS, shard_folders

# Seconds after the last write of progress.json for which a process on another machine counts as working: some file
# systems do not pass locks on to other machines.
_HEARTBEAT = 60.0
_BLOCK = 1 << 20
# Files that change although no work is done, or that are not of the run.
_NO_ACTIVITY = {PROGRESS, f".{PROGRESS}", ".lock", SHARDS}

State = Literal["running", "ended", "interrupted", "unfinished", "stopped"]
"""`interrupted`: by Ctrl-C, SIGTERM or an error. `unfinished`: by max_cost. `stopped`: no summary, as after a kill."""


@dataclass(frozen=True, slots=True)
class Count:
    """Finished rows of a stage."""

    stage: str
    done: int
    total: int | None
    """At most; None if it is unknown."""


@dataclass(frozen=True, slots=True)
class FrequentFailure:
    """The most frequent failure of the last start."""

    reason: str
    times: int


@dataclass(slots=True)
class Status:
    """How far a run is. What is unknown is None."""

    run: str
    command: str
    method: str | None
    state: State
    stage: str | None = None
    """The first stage that lacks rows; after the end, the last stage that was made."""
    stages: list[Count] = field(default_factory=list)
    items: str = "questions"
    """The noun for questions."""
    questions: int | None = None
    done: int | None = None
    failed: int | None = None
    pairs: int | None = None
    questions_with_pairs: int | None = None
    """Known after the end."""
    rounds_saved: int = 0
    """Rounds of LongMab-PO that `longmab.stop` made unnecessary."""
    steps: int | None = None
    """Steps of the last start."""
    steps_left: int | None = None
    new_tokens_per_second: float | None = None
    """Of all calls together, since the last start."""
    seconds_left: float | None = None
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By stage; see `StageTotals`."""
    cost: float = 0.0
    failure: FrequentFailure | None = None
    last_activity: str | None = None
    """When a file of the run changed; UTC."""
    process: dict[str, Any] | None = None
    """Of the last start: pid, host, started, updated."""
    shards: dict[str, int] | None = None
    """On Ray: total, ended, running."""


def runs_below(folder: Path) -> list[Path]:
    """The folders of all runs in a folder and below, itself included; shards of a run are not listed."""
    found = []
    for path, names, files in os.walk(folder):
        if CONFIG in files:
            found.append(Path(path))
            names.clear()
        names[:] = sorted(name for name in names if not name.startswith("."))
    return found


def status_of(folder: Path) -> Status:
    """The status of the run in a folder.

    Raises:
        UserError: the folder holds no run, or a file of the run cannot be read.
    """
    kind = kind_of(folder)
    summary = _summary(folder / kind.summary)
    if (folder / SHARDS).is_dir() and summary is None:
        return _on_ray(folder, kind)
    return _of_one(folder, kind, summary)


def _of_one(folder: Path, kind: RunKind, summary: dict[str, Any] | None) -> Status:
    progress = read_progress(folder)
    working = is_locked(folder) or is_locked(folder / SHARDS) or (summary is None and _writes_elsewhere(progress))
    status = Status(str(folder), kind.command, kind.method, _state(working, summary))
    if progress:
        _add_progress(status, progress)
    if summary:
        _add_summary(status, summary)
    status.stages = [Count(stage.name, _lines(folder / stage.journal), None) for stage in kind.stages]
    if kind.makes_pairs and status.pairs is None:
        status.pairs = _lines(folder / PAIRS)
    if not (progress or summary):
        _add_calls(status, folder)
    _finish(status, [folder], kind)
    if summary and kind.makes_pairs:
        status.stage = summary.get("stage")
    return status


def _on_ray(folder: Path, kind: RunKind) -> Status:
    """The status of a run on Ray that has not ended: the sums over its shards."""
    folders = shard_folders(folder / SHARDS)
    started = [path for path in folders if (path / CONFIG).is_file()]
    parts = [_of_one(path, kind, _summary(path / kind.summary)) for path in started]
    running = [part for part in parts if part.state == "running"]
    working = bool(running) or is_locked(folder / SHARDS)
    status = Status(str(folder), kind.command, kind.method, "running" if working else "stopped")
    status.questions = _questions_on_ray(folder / SHARDS)
    for name in ("done", "failed", "pairs", "rounds_saved", "steps"):
        known = [value for part in parts if (value := getattr(part, name)) is not None]
        setattr(status, name, sum(known))
    for number, stage in enumerate(kind.stages):
        status.stages.append(Count(stage.name, sum(part.stages[number].done for part in parts), None))
    for part in parts:
        for stage_name, totals in part.calls.items():
            before = StageTotals(**status.calls.get(stage_name, {}))
            status.calls[stage_name] = before.plus(StageTotals(**totals))._asdict()
    status.cost = sum(part.cost for part in parts)
    status.new_tokens_per_second = sum(part.new_tokens_per_second or 0.0 for part in running) if running else None
    ended = sum(part.state == "ended" for part in parts)
    total = len(_edges(folder / SHARDS)) - 1
    status.shards = {"total": max(total, len(folders)), "ended": ended, "running": len(running)}
    _finish(status, [folder, *started], kind)
    _add_time_on_ray(status, kind, parts, running)
    return status


def _finish(status: Status, folders: list[Path], kind: RunKind) -> None:
    """Adds what follows from the counts, and what is read from the files of one or several folders."""
    skipped = 0
    if kind.method == "longmab":
        skipped = sum(not row["kept"] for path in folders for row in read_rows(path / PROBES, ["kept"]))
    rows = {count.stage: count.done for count in status.stages}
    status.stages = [Count(stage.name, rows[stage.name], _total(stage, rows, status, skipped)) for stage in kind.stages]
    lacking = (count.stage for count in status.stages if count.total is None or count.done < count.total)
    status.stage = next(lacking, "pairs" if kind.makes_pairs else kind.stages[-1].name)
    status.failure = _most_frequent(path / FAILURES for path in folders)
    times = [time for path in folders for time in _times(path)]
    if times:
        status.last_activity = datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds")


def _total(stage: Stage, rows: dict[str, int], status: Status, skipped: int) -> int | None:
    """The rows that a stage will have, at most; `skipped` questions have no rollouts."""
    if stage.rows is None:
        return next(iter(rows.values()))
    if status.questions is None:
        return None
    if stage.name == "rollout":
        return stage.rows * (status.questions - skipped) - status.rounds_saved
    return stage.rows * status.questions


def _state(working: bool, summary: dict[str, Any] | None) -> State:
    if working:
        return "running"
    if summary is None:
        return "stopped"
    if summary.get("interrupted"):
        return "interrupted"
    return "unfinished" if summary.get("unfinished") else "ended"


def _add_progress(status: Status, progress: dict[str, Any]) -> None:
    status.items = progress["items"]
    status.questions, status.failed = progress["questions"], progress["failed"]
    status.done = progress["ended"] - progress["failed"]
    if Outcome.PAIR in progress["outcomes"]:
        status.pairs = progress["outcomes"][Outcome.PAIR]
    status.rounds_saved = progress.get("spared", 0)
    status.steps, status.steps_left = progress["steps"], max(progress["total"] - progress["steps"], 0)
    status.new_tokens_per_second = progress["speed"]["new_tokens_per_second"]
    status.seconds_left = progress["seconds_left"]
    status.calls, status.cost = progress["calls"], progress["cost"]
    status.process = {name: progress[name] for name in ("pid", "host", "started", "updated")}


def _add_summary(status: Status, summary: dict[str, Any]) -> None:
    if "documents" in summary:
        status.items = "documents"
    failed, unfinished = summary.get("failed", 0), summary.get("unfinished", 0)
    if status.questions is None:
        status.questions = summary.get("documents", summary.get("questions"))
        if status.questions is not None and "by_question" in summary:  # an evaluation counts those with a score
            status.questions += failed
    status.failed = failed
    if status.questions is not None:
        status.done = status.questions - failed - unfinished
    status.pairs = summary.get("pairs")
    status.questions_with_pairs = summary.get("questions_with_pairs")
    status.rounds_saved = summary.get("rounds_saved", 0)
    status.calls, status.cost = summary.get("calls", {}), summary.get("cost", 0.0)
    if status.state == "ended":
        status.steps_left, status.seconds_left = 0, 0.0


def _add_calls(status: Status, folder: Path) -> None:
    """From the call cache, for runs of versions that wrote no progress.json."""
    for stage in read_stages(folder):
        totals = (stage.calls, stage.prompt_tokens, stage.completion_tokens, stage.cost, stage.cached_tokens)
        status.calls[stage.name] = StageTotals(*totals, stage.truncated)._asdict()
        status.cost += stage.cost


def _add_time_on_ray(status: Status, kind: RunKind, parts: list[Status], running: list[Status]) -> None:
    """Steps left, with those of shards that have not started, and the time at the present speed."""
    begun = [part for part in parts if part.questions and part.steps_left is not None]
    if not begun or status.questions is None:
        return
    a_question = sum(stage.rows or 1 for stage in kind.stages)
    waiting = status.questions - sum(part.questions or 0 for part in parts)
    status.steps_left = sum(part.steps_left or 0 for part in begun) + a_question * waiting
    speeds = [part.steps_left / part.seconds_left for part in running if part.seconds_left and part.steps_left]
    if speeds:
        status.seconds_left = status.steps_left / sum(speeds)


def _questions_on_ray(folder: Path) -> int | None:
    edges = _edges(folder)
    return edges[-1] - edges[0] if edges else None


def _edges(folder: Path) -> list[int]:
    """The numbers of the questions at which the shards begin and end; empty if they are unknown."""
    try:
        return [int(edge) for edge in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["edges"]]
    except (OSError, ValueError, TypeError, LookupError):
        return []


def _writes_elsewhere(progress: dict[str, Any]) -> bool:
    """Whether a process on another machine has written its progress a short time ago."""
    if not progress or progress["host"] == socket.gethostname():
        return False
    return (datetime.now(UTC) - datetime.fromisoformat(progress["updated"])).total_seconds() < _HEARTBEAT


def _summary(path: Path) -> dict[str, Any] | None:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}; check its permissions") from None
    return summary if isinstance(summary, dict) else None


def _lines(path: Path) -> int:
    """The number of whole lines; 0 if the file is missing."""
    if not path.is_file():
        return 0
    with path.open("rb", buffering=0) as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))


def _most_frequent(paths: Iterable[Path]) -> FrequentFailure | None:
    causes = Causes()
    for path in paths:
        for row in read_rows(path, ("reason",)):
            causes.add(str(row["reason"]))
    reason, times = causes.most_frequent()
    return FrequentFailure(reason, times) if times else None


def _times(folder: Path) -> Iterable[float]:
    """When each file of a run has changed."""
    for entry in os.scandir(folder):
        if entry.name not in _NO_ACTIVITY and not entry.name.endswith("-shm"):
            with suppress(FileNotFoundError):  # replaced at this moment
                yield entry.stat().st_mtime
