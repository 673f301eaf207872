"""LLaMA-Factory's data set registry, `dataset_info.json`: read, checked, and updated without losing other entries."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from lf_longpo.errors import UserError
from lf_longpo.files.journal import check_folder, write_whole

DATASET_INFO = "dataset_info.json"
# Keys that state where the data is; all other keys of an entry are its shape.
_SOURCES = ("file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_LOCATION = (*_SOURCES, "subset", "split", "folder", "num_samples")
RANKING_COLUMNS = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}


def load_dataset_info(dataset_dir: str | Path) -> dict[str, Any]:
    """The entries of `dataset_dir`/dataset_info.json, in order; none if the file is missing.

    Raises:
        UserError: the file is not a JSON object of objects.
    """
    path = Path(dataset_dir) / DATASET_INFO
    if not path.is_file():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}; fix the file; nothing was written") from None
    if not isinstance(info, dict) or not all(isinstance(entry, dict) for entry in info.values()):
        raise UserError(f"{path} must hold an object of data sets, each an object; fix the file; nothing was written")
    return info


def ranking_entry(file_name: str, system: bool = False) -> dict[str, Any]:
    """The entry of a file with the columns prompt, chosen and rejected.

    Args:
        file_name: the file, relative to the data folder.
        system: whether the file also has the column system, with the system prompt.
    """
    columns = RANKING_COLUMNS | ({"system": "system"} if system else {})
    return {"file_name": file_name, "ranking": True, "columns": columns}


def sft_entry(file_name: str) -> dict[str, Any]:
    """The entry of a file with the columns context, query and answer, as LongReward's SFT data have them."""
    return {"file_name": file_name, "columns": {"prompt": "context", "query": "query", "response": "answer"}}


def register_dataset(dataset_dir: str | Path, name: str, entry: Mapping[str, Any], overwrite: bool = False) -> None:
    """Adds or replaces one entry of dataset_info.json; other entries, their order and their values stay.

    The update is atomic, and processes that register at the same time wait for each other. If dataset_info.json is a
    symbolic link, its target is updated.

    Args:
        dataset_dir: LLaMA-Factory's data folder; created if it is missing.
        name: the name that recipes use under `dataset`.
        entry: in LLaMA-Factory's format; it must name exactly one source.
        overwrite: whether an entry of the same name and another shape may be replaced. An entry of the same shape,
            which differs only in where its data is, is always replaced.

    Raises:
        UserError: the name or entry is unusable, the file is broken, or the name has an entry of another shape.
    """
    check_registration(dataset_dir, name, entry, overwrite)
    folder = Path(dataset_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # Several data folders may link to one file, which has one lock.
    path = (folder / DATASET_INFO).resolve()
    with FileLock(path.with_name(f"{path.name}.lock")):
        check_registration(folder, name, entry, overwrite)
        info = load_dataset_info(folder)
        info[name] = dict(entry)
        _write(path, info)


def unregister_dataset(dataset_dir: str | Path, name: str) -> None:
    """Removes one entry of dataset_info.json if it exists; the update is atomic, as that of `register_dataset`.

    Raises:
        UserError: the file is broken.
    """
    path = (Path(dataset_dir) / DATASET_INFO).resolve()
    with FileLock(path.with_name(f"{path.name}.lock")):
        info = load_dataset_info(dataset_dir)
        if info.pop(name, None) is not None:
            _write(path, info)


def _write(path: Path, info: Mapping[str, Any]) -> None:
    text = json.dumps(info, ensure_ascii=False, indent=2)
    # Half characters (lone surrogates) of other entries stay as JSON escapes.
    write_whole(path, [text.encode("utf-8", "backslashreplace").decode(), "\n"])


def check_registration(dataset_dir: str | Path, name: str, entry: Mapping[str, Any], overwrite: bool = False) -> None:
    """Raises before hours of work what `register_dataset` would raise after them.

    Raises:
        UserError: as `register_dataset`.
    """
    if not name.strip() or "," in name or "/" in name:  # LLaMA-Factory splits `dataset` at commas
        raise UserError(f"a data set's name must not be empty or hold a comma or a slash; rename {name!r}")
    if sum(source in entry for source in _SOURCES) != 1:
        raise UserError(f"the entry of {name!r} must name exactly one of {', '.join(_SOURCES)}")
    check_folder((Path(dataset_dir) / DATASET_INFO).resolve().parent, "the data folder")
    there = load_dataset_info(dataset_dir).get(name)
    if there is not None and not overwrite and _shape(there) != _shape(entry):
        raise UserError(
            f"{Path(dataset_dir) / DATASET_INFO} has an entry {name!r} of another shape ({json.dumps(there)}); "
            "choose another name, remove the entry, or pass --overwrite to longpo register"
        )


def _shape(entry: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {"formatting": "alpaca", "ranking": False}
    return defaults | {key: value for key, value in entry.items() if key not in _LOCATION}
