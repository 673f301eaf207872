"""Entries of dataset_info.json for data sets of any format: from the first rows, or from what the user states."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lf_longpo.errors import UserError
from lf_longpo.plugin.column_guess import (
    RESPONSES,
    Formatting,
    guess_columns,
    guess_formatting,
    guess_tags,
    is_conversational,
    sample_of,
)
from lf_longpo.plugin.dataset_files import TYPES, FirstRows, first_rows
from lf_longpo.plugin.registry import RANKING_COLUMNS
from lf_longpo.plugin.row_shape import COLUMNS, DEFAULT_COLUMNS, DEFAULT_TAGS, ROLE_TAGS, shape_of, type_fault

_CLOUDS = ("s3://", "gs://", "gcs://")
# Default columns of hub data sets, since their rows are not read.
_HUB_COLUMNS = {
    "alpaca": {column: DEFAULT_COLUMNS[column] for column in ("prompt", "response")},
    "sharegpt": {"messages": DEFAULT_COLUMNS["messages"]},
}


def describe_dataset(
    source: str,
    dataset_dir: str | Path,
    formatting: Formatting | None = None,
    ranking: bool | None = None,
    columns: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    subset: str | None = None,
    split: str | None = None,
) -> dict[str, Any]:
    """LLaMA-Factory's entry for a local file or folder, a file in a cloud, or a hub data set.

    For a local file or folder, missing arguments are derived from the first rows. For other sources give all of them.

    Args:
        source: a .jsonl, .json, .parquet, .csv, .arrow or .txt file, a folder of files of one of these types, a
            s3:// or gs:// address, or a hub name.
        dataset_dir: LLaMA-Factory's data folder; the file is named relative to it.
        formatting: alpaca (one prompt, one response) or sharegpt (a list of messages).
        ranking: whether rows hold a chosen and a rejected response.
        columns: the data set's column for each of LLaMA-Factory's column names.
        tags: the data set's name for each of LLaMA-Factory's tags (role_tag, user_tag, ...), for sharegpt.
        subset: configuration of a hub data set.
        split: split of a hub data set.

    Raises:
        UserError: the file cannot be read, has no column that the entry needs, or has values that LLaMA-Factory does
            not read; or a given column or tag is unknown to LLaMA-Factory.
    """
    columns, tags = dict(columns or {}), dict(tags or {})
    for option, given, known in (("columns", columns, COLUMNS), ("tags", tags, DEFAULT_TAGS)):
        if unknown := [name for name in given if name not in known]:
            raise UserError(f"--{option}: LLaMA-Factory has no {unknown[0]!r}; use {', '.join(known)}")
    if is_local(source):
        if subset or split:
            raise UserError("--subset and --split are for hub data sets; remove them for a file")
        first = first_rows(Path(source))
        entry = guess_entry(first, dataset_dir, formatting, ranking, columns, tags)
        check_loadable(first, entry)
        return entry
    if source.startswith(_CLOUDS):
        entry = {"cloud_file_name": source}
    else:
        entry = {"hf_hub_url": source} | {key: value for key, value in (("subset", subset), ("split", split)) if value}
    if ranking or columns:
        # Once an entry names a column, LLaMA-Factory has no defaults for the others.
        base = _HUB_COLUMNS[formatting or "alpaca"]
        if ranking:
            base = base | RESPONSES if formatting == "sharegpt" else RANKING_COLUMNS
        columns = base | columns
    return entry | _described(formatting, ranking, columns, DEFAULT_TAGS | tags)


def guess_entry(
    first: FirstRows,
    dataset_dir: str | Path,
    formatting: Formatting | None = None,
    ranking: bool | None = None,
    columns: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The entry of a local file or folder, derived from its columns; arguments as for `describe_dataset`.

    Raises:
        UserError: a column that the entry needs is missing.
    """
    sample = sample_of(first.rows)
    formatting = formatting or guess_formatting(sample)
    ranking = set(RESPONSES) <= set(sample) if ranking is None else ranking
    given = columns or {}
    columns = guess_columns(sample, formatting, ranking, given)
    _check_columns(first.place, sample, formatting, ranking, columns, given)
    tags = guess_tags(first.rows, columns, tags or {}) if formatting == "sharegpt" else DEFAULT_TAGS
    file_name = Path(os.path.relpath(first.source, dataset_dir)).as_posix()
    return {"file_name": file_name} | _described(formatting, ranking, columns, tags)


def check_loadable(first: FirstRows, entry: Mapping[str, Any]) -> None:
    """Checks that LLaMA-Factory can use the first rows of a local file or folder with this entry.

    Raises:
        UserError: it would fail on them or drop them.
    """
    sample, shape = sample_of(first.rows), shape_of(entry)
    fault = type_fault(sample, shape, answered="response" in shape.columns or shape.ranking)
    messages = sample.get(shape.columns.get("messages", "")) if shape.formatting != "alpaca" else None
    if fault is None and messages:
        roles = {message[shape.tags["role_tag"]]: None for message in messages}
        if not set(roles) & {shape.tags.get(tag) for tag in ROLE_TAGS}:
            fault = f"the roles are {', '.join(map(repr, roles))}; name them with --tags user_tag=... assistant_tag=..."
    if fault is None:
        return
    hint = ""
    if is_conversational(sample):
        hint = "; these rows have TRL's conversational form"
        if shape.ranking:
            hint += f"; run `longpo export {first.source} OUTPUT.jsonl --to sharegpt` to convert them"
    raise UserError(f"{first.place}: {fault}{hint}")


def remarks(first: FirstRows, entry: Mapping[str, Any]) -> list[str]:
    """Remarks on the entry of a local file or folder: a broken row, no response, columns that are not read."""
    shape = shape_of(entry)
    found = [f"LLaMA-Factory cannot load it: {first.broken}"] if first.broken else []
    if shape.formatting == "alpaca" and not shape.ranking and "response" not in shape.columns:
        found.append(
            "no column holds the response: only the stages pt and ppo can train on it; if there is one, name it with "
            "--columns response=NAME"
        )
    if unread := [name for name in sample_of(first.rows) if name not in shape.columns.values()]:
        found.append(f"columns that training does not read: {', '.join(unread)}")
    return found


def is_local(source: str) -> bool:
    """Whether a source is a file or folder on this machine (it may be missing) and not a cloud or hub data set."""
    path = Path(source)
    return not source.startswith(_CLOUDS) and (path.exists() or path.suffix.lower() in TYPES)


def _described(
    formatting: str | None, ranking: bool | None, columns: Mapping[str, str], tags: Mapping[str, str]
) -> dict[str, Any]:
    described = {
        "formatting": "sharegpt" if formatting == "sharegpt" else None,
        "ranking": ranking,
        "columns": dict(columns),
        "tags": dict(tags) if tags != DEFAULT_TAGS else None,
    }
    return {key: value for key, value in described.items() if value}


def _check_columns(
    place: str,
    sample: Mapping[str, Any],
    formatting: str,
    ranking: bool,
    columns: Mapping[str, str],
    given: Mapping[str, str],
) -> None:
    needed = ["messages"] if formatting == "sharegpt" else ["prompt"]
    # Another column of texts may hold the response. If there is none, the rows are for pretraining or PPO.
    unread = any(isinstance(value, str) for name, value in sample.items() if name not in columns.values())
    if ranking:
        needed += RESPONSES
    elif formatting == "alpaca" and unread and "prompt" not in given and columns.get("prompt") != "text":
        needed.append("response")
    for column in dict.fromkeys([*needed, *given]):
        name = columns.get(column) or DEFAULT_COLUMNS.get(column, column)
        if name not in sample:
            raise UserError(
                f"{place}: no column {name!r} for {column}; there are {', '.join(sample)}; "
                f"name it with --columns {column}=NAME"
            )
