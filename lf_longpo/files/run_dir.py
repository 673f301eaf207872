"""A run's folder: one run at a time works in it, and only ever with the settings it was begun with."""

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

# Settings whose keys the user names; they are compared as a whole.
_OPEN = {"extra_body", "extra_headers"}
# What may change between two starts of one run: where models are reached and how fast, not what they are asked.
# Input and responses may be other files: each row tells whether it is still the same.
_FREE = {
    "input",
    "input_split",
    "start",
    "end",
    "output_dir",
    "dataset_dir",
    "dataset_name",
    "responses",
    "licence",
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
    """Settings that determine results and differ from those that `output_dir` was begun with: (then, now) by name.

    Raises:
        UserError: the folder's config.yaml cannot be read.
    """
    saved = output_dir / CONFIG
    if not saved.is_file():
        return {}
    try:
        data = parse_yaml(saved.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{saved} is not YAML ({first_line(error)}); set another output_dir or mend it") from None
    if not isinstance(data, dict):
        raise UserError(f"{saved} holds no settings; set another output_dir or mend it")
    with suppress(ValidationError):  # by a version that had other settings; those that it lacked were as by default
        data = type(config).model_validate(data).model_dump(mode="json")
    then, now = _flat(data), _flat(config.model_dump(mode="json"))
    names = [name for name in {**then, **now} if not _FREE & set(name.split("."))]
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


def refuse_changed_questions(
    digests: Mapping[str, str], journal: Path, key: Callable[[Row], str | None] = row_id
) -> None:
    """Refuses to carry on with a question that is not the one worked on before.

    Args:
        digests: of the questions and all that is asked about them, by id.
        journal: the journal whose rows carry the `digest` of that time.
        key: as for `Journal`.

    Raises:
        UserError: a question, its prompt or the adapter is another.
    """
    for row in read_rows(journal, ["digest"], key):
        id = key(row)
        if digests.get(id, row["digest"]) != row["digest"]:
            raise UserError(
                f"question {id!r}, its prompt or its adapter has changed since the run in {journal.parent} "
                "began; set another output_dir"
            )


@contextmanager
def locked(output_dir: Path, patience: float = 0.0) -> Iterator[None]:
    """Makes the folder and keeps other runs out while the block lasts.

    Args:
        output_dir: the folder.
        patience: seconds to wait for another run to end.

    Raises:
        UserError: another process works in the folder.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output_dir / ".lock", timeout=patience):
            yield
    except Timeout:
        raise UserError(f"another run is working in {output_dir}; wait for it or set another output_dir") from None


def save_settings(config: Config, output_dir: Path) -> None:
    """Writes the resolved configuration, from now on the one that the folder was begun with.

    Where the folder's own place does not show where the run was started (see `started_in`), paths are written in full.
    """
    data = config.model_dump(mode="json")
    if started_in(Path(data["output_dir"]), output_dir) is None:
        for name in ("input", "responses", "dataset_dir"):
            value = data.get(name)
            if isinstance(value, str) and (name == "dataset_dir" or Path(value).exists()):  # not a name on the hub
                data[name] = str(Path(value).absolute())
    write_whole(output_dir / CONFIG, [dump_yaml(data)])


def started_in(saved: Path, folder: Path) -> Path | None:
    """The directory that a run was started in, from which the relative paths of its configuration count.

    Args:
        saved: the `output_dir` of the configuration.
        folder: where that is now.

    Returns:
        None where `saved` is an absolute path, or leads out of the directory.
    """
    if saved.is_absolute() or ".." in saved.parts:
        return None
    return Path(os.path.normpath(folder.absolute().joinpath(*[".."] * len(saved.parts))))


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) and key not in _OPEN else {name: value}
    return flat
