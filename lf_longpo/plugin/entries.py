"""Describing a data set to LLaMA-Factory: which format its rows have and which columns hold what."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lf_longpo.errors import UserError, first_line
from lf_longpo.plugin.registry import RANKING_COLUMNS
from lf_longpo.tables import FILE_TYPES, places_and_rows

Formatting = Literal["alpaca", "sharegpt"]
# Columns that LLaMA-Factory reads where an entry names none.
_DEFAULT_COLUMNS = {
    "alpaca": {"prompt": "instruction", "response": "output"},
    "sharegpt": {"messages": "conversations"},
}
_RESPONSES = {"chosen": "chosen", "rejected": "rejected"}
# What LLaMA-Factory loads beside the types that questions come in.
_OTHER_TYPES = (".csv", ".arrow")
_OPENAI_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


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
    """LLaMA-Factory's entry for a local file or a hub data set.

    What is not told is read from the first row of a local file; of a hub data set it must be told.

    Args:
        source: a .jsonl, .json, .parquet, .csv or .arrow file, or a hub name.
        dataset_dir: LLaMA-Factory's data folder; the file is named relative to it.
        formatting: alpaca (one prompt, one response) or sharegpt (a list of messages).
        ranking: whether rows hold a chosen and a rejected response.
        columns: LLaMA-Factory's column names to the data set's.
        tags: LLaMA-Factory's tag names (role_tag, user_tag, ...) to the data set's, for sharegpt.
        subset: configuration of a hub data set.
        split: split of a hub data set.

    Raises:
        UserError: the file cannot be read, or lacks a column that the entry needs.
    """
    path = Path(source)
    local = path.exists() or path.suffix in (*FILE_TYPES, *_OTHER_TYPES)
    columns, tags = dict(columns or {}), dict(tags or {})
    if local:
        if subset or split:
            raise UserError("--subset and --split go with a hub data set, not with a file")
        place, row = _first_row(path)
        if not isinstance(row, dict):
            raise UserError(f"{place}: no rows with named columns; a data set needs at least one")
        formatting = formatting or ("sharegpt" if {"messages", "conversations"} & set(row) else "alpaca")
        ranking = {"chosen", "rejected"} <= set(row) if ranking is None else ranking
        columns, tags = _guessed(row, formatting, ranking) | columns, _guessed_tags(row, formatting) | tags
        _check_columns(place, row, formatting, ranking, columns)
        entry: dict[str, Any] = {"file_name": Path(os.path.relpath(path, dataset_dir)).as_posix()}
    else:
        entry = {"hf_hub_url": source}
        entry |= {key: value for key, value in (("subset", subset), ("split", split)) if value}
        if ranking or columns:
            # LLaMA-Factory has no defaults left for the others once an entry names a column.
            base = _DEFAULT_COLUMNS[formatting or "alpaca"]
            if ranking:
                base = base | _RESPONSES if formatting == "sharegpt" else RANKING_COLUMNS
            columns = base | columns
    if formatting == "sharegpt":
        entry["formatting"] = "sharegpt"
    if ranking:
        entry["ranking"] = True
    if columns:
        entry["columns"] = columns
    if tags:
        entry["tags"] = tags
    return entry


def _first_row(path: Path) -> tuple[str, Any]:
    if path.suffix not in _OTHER_TYPES or not path.is_file():
        return next(places_and_rows(str(path), halves=True), (str(path), None))
    from datasets import load_dataset

    try:
        rows = load_dataset(path.suffix[1:], data_files=str(path), split="train", streaming=True)
        return f"{path}, record 1", next(iter(rows), None)
    except Exception as error:  # the library raises many kinds, all meaning that it cannot be read
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None


def _guessed(row: dict[str, Any], formatting: str, ranking: bool) -> dict[str, str]:
    if formatting == "sharegpt":
        guess = {"messages": "messages" if "messages" in row else "conversations"}
    else:
        # An entry that names any column has no defaults left for the others, so all that are there are named.
        prompts = ("prompt", "instruction") if ranking else ("instruction", "prompt")
        names = {"prompt": prompts, "response": () if ranking else ("output", "response")}
        guess = {ours: next((name for name in theirs if name in row), "") for ours, theirs in names.items()}
        guess = {ours: name for ours, name in guess.items() if name}
        if guess.get("prompt") == "instruction" and "input" in row:
            guess["query"] = "input"
    return guess | _RESPONSES if ranking else guess


def _guessed_tags(row: dict[str, Any], formatting: str) -> dict[str, str]:
    messages = row.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    if formatting == "sharegpt" and isinstance(first, dict) and "role" in first:
        return dict(_OPENAI_TAGS) | {"system_tag": "system"}
    return {}


def _check_columns(place: str, row: dict[str, Any], formatting: str, ranking: bool, columns: Mapping[str, str]) -> None:
    needed = ["messages"] if formatting == "sharegpt" else ["prompt"]
    needed += ["chosen", "rejected"] if ranking else ([] if formatting == "sharegpt" else ["response"])
    for column in needed:
        name = columns.get(column) or _DEFAULT_COLUMNS[formatting].get(column, column)
        if name not in row:
            raise UserError(
                f"{place}: no column {name!r} for {column}; there are {', '.join(row)}; "
                f"name it with --columns {column}=NAME"
            )
