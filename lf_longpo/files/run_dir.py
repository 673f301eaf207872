"""A run's folder: only one run at a time works in it, and its settings cannot change between two starts."""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from lf_longpo.config import Config
from lf_longpo.config.yaml_text import dump_yaml, parse_yaml
from lf_longpo.errors import UserError, first_line
from lf_longpo.files.journal import Row, read_rows, row_id, write_whole

CONFIG, SUMMARY = "config.yaml", "summary.json"
_LOCK = ".lock"
# Seconds for which a lock is tried at least: `is_locked` holds it for some microseconds.
_LEAST_PATIENCE = 0.5

# Settings with keys of the user's choice; they are compared as a whole.
_OPEN = {"extra_body", "extra_headers"}
# Settings that may change between two starts: where and how fast models are called, but not what they are asked. The
# input files may also change, because the digest in each row shows whether its question is still the same.
_CHANGEABLE = {
    "input",
    "input_split",
    "start",
    "end",
    "output_dir",
    "dataset_dir",
    "dataset_name",
    "responses",
    "licence",
    "preset",
    "contexts",
    "max_failure_rate",
    "max_cost",
    "price",
    "provider",
    "baseline",
    "base_url",
    "api_key_env",
    "max_concurrency",
    "timeout",
    "max_retries",
    "api_version",
    "continues_replies",
    "token_probabilities",
    "send_seed",
    "trust_remote_code",
    "requests_per_minute",
    "tokens_per_minute",
    "tensor_parallel_size",
    "data_parallel_size",
    "batch_size",
    "device",
    "batch",
}


def changed_settings(config: Config, output_dir: Path) -> dict[str, tuple[Any, Any]]:
    """The settings that determine results and differ from those of the run in `output_dir`.

    Returns:
        By name, the value in `output_dir` and the value in `config`.

    Raises:
        UserError: the folder's config.yaml cannot be read.
    """
    saved = output_dir / CONFIG
    if not saved.is_file():
        return {}
    try:
        data = parse_yaml(saved.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{saved} is not YAML ({first_line(error)}); fix the file or set another output_dir") from None
    if not isinstance(data, dict):
        raise UserError(f"{saved} holds no settings; fix the file or set another output_dir")
    with suppress(ValidationError):  # written by another version; settings that it did not have were at their defaults
        data = type(config).model_validate(data).model_dump(mode="json")
    then, now = _flat(data), _flat(config.model_dump(mode="json"))
    if then.get("method") != now.get("method"):  # its sections differ for that reason
        return {"method": (then.get("method"), now.get("method"))}
    names = [name for name in {**then, **now} if not _CHANGEABLE & set(name.split("."))]
    return {name: (then.get(name), now.get(name)) for name in names if then.get(name) != now.get(name)}


def refuse_changes(changed: dict[str, tuple[Any, Any]], output_dir: Path) -> None:
    """Refuses to mix results of two configurations in one folder.

    Raises:
        UserError: settings changed; the message names them.
    """
    if changed:
        changes = "; ".join(f"{name} was {then!r} and is now {now!r}" for name, (then, now) in changed.items())
        raise UserError(
            f"{output_dir} holds a run with other settings: {changes}; set another output_dir or undo the change"
        )


def refuse_changed_questions(
    digests: Mapping[str, str], journal: Path, key: Callable[[Row], str | None] = row_id
) -> None:
    """Refuses to resume with questions that have changed since the run began.

    Args:
        digests: the questions' digests by id, see `Question.digest`.
        journal: a journal with rows that hold the `digest` from the time of the work.
        key: as for `Journal`.

    Raises:
        UserError: a question, its prompt or the adapter has changed.
    """
    for row in read_rows(journal, ["digest"], key):
        id = key(row)
        if id is not None and digests.get(id, row["digest"]) != row["digest"]:
            raise UserError(
                f"question {id!r}, its prompt or its adapter has changed since the run in {journal.parent} "
                "began; set another output_dir"
            )


@contextmanager
def locked(output_dir: Path, patience: float = 0.0) -> Iterator[None]:
    """Creates the folder and locks it against other runs for the length of the block.

    Args:
        output_dir: the folder.
        patience: seconds to wait for another run to end.

    Raises:
        UserError: another process has locked the folder.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output_dir / _LOCK, timeout=max(patience, _LEAST_PATIENCE)):
            yield
    except Timeout:
        raise UserError(f"another run is working in {output_dir}; wait for it or set another output_dir") from None


def is_locked(output_dir: Path) -> bool:
    """Whether a run has locked the folder. Changes nothing; a run that starts at this moment is not refused."""
    try:
        with (output_dir / _LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing the file releases it
    except BlockingIOError:
        return True
    except OSError:  # there is no such file, or the file system has no locks
        return False
    return False


def save_settings(config: Config, output_dir: Path) -> None:
    """Writes the resolved configuration to the folder's config.yaml.

    If the folder's path does not show where the run was started (see `started_in`), paths are written as absolute.
    """
    data = config.model_dump(mode="json")
    if started_in(Path(data["output_dir"]), output_dir) is None:
        for name in ("input", "responses", "dataset_dir"):
            value = data.get(name)
            if isinstance(value, str) and (name == "dataset_dir" or Path(value).exists()):  # not a name on the hub
                data[name] = str(Path(value).absolute())
    write_whole(output_dir / CONFIG, [dump_yaml(data)])


def started_in(saved: Path, folder: Path) -> Path | None:
    """The directory that a run was started in. Relative paths of its configuration start there.

    Args:
        saved: the `output_dir` of the configuration.
        folder: the current path of that folder.

    Returns:
        The directory; None if `saved` is absolute or holds "..", or if the folder was copied or moved to a place that
        does not end like `saved`. Only the folder itself may have another name.
    """
    if saved.is_absolute() or ".." in saved.parts:
        return None
    current = folder.absolute()
    if current.parts[-len(saved.parts) :] != saved.parts:  # perhaps a link to the folder
        current = folder.resolve()
    if current.parts[-len(saved.parts) : -1] != saved.parts[:-1]:
        return None
    return Path(os.path.normpath(current.joinpath(*[".."] * len(saved.parts))))


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) and key not in _OPEN else {name: value}
    return flat
