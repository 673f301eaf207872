"""Sets of pairs by name: a file of pairs with its columns, and the run that made it, if there is one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.data.pairs import PAIRS
from lf_longpo.data.review import decisions_of, text_of
from lf_longpo.errors import UserError
from lf_longpo.files.journal import Row
from lf_longpo.files.run_dir import CONFIG
from lf_longpo.plugin.dataset_files import first_rows
from lf_longpo.plugin.entries import guess_entry
from lf_longpo.plugin.registry import DATASET_INFO, RANKING_COLUMNS, load_dataset_info
from lf_longpo.plugin.row_shape import shape_of
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.run_folder.data_set import entry_of
from lf_longpo.text.graphemes import whole_end

_COLUMNS = ("prompt", "query", "system", "history", "tools", "chosen", "rejected")
_MESSAGE_TAGS = ("role_tag", "content_tag")
# The number of characters at the end of a prompt that stand for its question.
_END = 300


@dataclass(frozen=True, slots=True)
class PairSet:
    """A set of pairs, to be viewed, exported or registered."""

    name: str
    path: Path
    """A .jsonl file."""
    entry: dict[str, Any]
    """Its entry for dataset_info.json, without the file name."""
    columns: dict[str, str]
    """The file's names of LLaMA-Factory's columns (prompt, query, system, history, tools, chosen, rejected), and of the
    fields of messages (role_tag, content_tag) if the prompt is a list of messages."""
    decisions: Path
    """The file of the review decisions."""
    run: RunFolder | None
    """The run that made the pairs; None if it is unknown."""
    found_as: str
    """The argument that found it: a run's folder, a file, or a registered name."""
    dataset_dir: Path
    """The folder of its data set's dataset_info.json, or the one that was searched."""


def find_pair_set(name: str, dataset_dir: Path) -> PairSet:
    """Finds a set of pairs.

    Args:
        name: a run's folder, a .jsonl file of pairs, or the name of a registered data set.
        dataset_dir: the folder with the dataset_info.json of registered data sets.

    Raises:
        UserError: nothing has that name, or it is not a .jsonl file of pairs.
    """
    folder = Path(name)
    if (folder / CONFIG).is_file():
        run = RunFolder(folder)
        registered = run.data_set
        # Review decisions are about the pairs that training reads. During the run, new pairs are not registered yet.
        path = registered if registered and registered.is_file() and run.summary() else folder / PAIRS
        if not path.is_file():
            raise UserError(f"{folder} has no pairs yet; wait for the first pair, or resume the run")
        entry, name_of_run = entry_of(run.config), run.config.dataset_name
        # The decisions' file does not depend on whether the run has ended, so that decisions stay when it ends or
        # resumes. Without a place for the data set it is in the run's folder, and stays there.
        decisions = decisions_of(folder / f"{name_of_run}.jsonl")
        if registered and not decisions.is_file():
            decisions = decisions_of(registered)
        home = registered.parent if registered else dataset_dir
        return PairSet(name_of_run, path, entry, dict(entry["columns"]), decisions, run, name, home)
    if folder.is_dir():
        raise UserError(f"{folder} holds no run: {CONFIG} is missing; name a run's folder, a file or a data set")
    listed = load_dataset_info(dataset_dir).get(name)
    if listed is None and not folder.is_file():
        raise UserError(f"no run, file or data set {name!r} (in {dataset_dir / DATASET_INFO}); check the name")
    path = folder if listed is None else dataset_dir / str(listed.get("file_name"))
    if path.suffix != ".jsonl" or not path.is_file():
        raise UserError(f"{name}: {path} is not a .jsonl file here; convert it to .jsonl or name another data set")
    entry = listed or guess_entry(first_rows(path), path.parent)
    if not entry.get("ranking"):
        raise UserError(f"{name} is not a data set of pairs; name one with chosen and rejected responses")
    columns = dict(entry.get("columns") or {})
    messages: dict[str, str] = {}
    if entry.get("formatting", "alpaca") != "alpaca":
        columns = {"prompt": columns.get("messages", "conversations"), **columns}
        messages = {tag: name for tag, name in shape_of(entry).tags.items() if tag in _MESSAGE_TAGS}
    read = {ours: theirs for ours, theirs in columns.items() if ours in _COLUMNS}
    columns = {**RANKING_COLUMNS, **read, **messages}
    return PairSet(name, path, entry, columns, decisions_of(path), None, name, dataset_dir)


class PromptPart(NamedTuple):
    """A part of a training prompt."""

    heading: str
    text: str


def prompt_parts(row: Row, columns: Mapping[str, str]) -> list[PromptPart]:
    """What training reads before the response, in order: system prompt, tools, earlier turns, and the prompt.

    A prompt of several messages has a part for each of them, with its role.

    Args:
        row: a pair.
        columns: see `PairSet.columns`.
    """
    tag = columns.get("content_tag")
    parts = [
        PromptPart(heading, text)
        for heading, name in (("System prompt", "system"), ("Tools", "tools"))
        if name in columns and (text := _plain(row.get(columns[name])))
    ]
    history = row.get(columns["history"]) if "history" in columns else None
    for number, turn in enumerate(history if isinstance(history, list) else [], 1):
        for speaker, text in zip(("user", "assistant"), turn if isinstance(turn, list) else [turn], strict=False):
            parts.append(PromptPart(f"History, turn {number}: {speaker}", "" if text is None else str(text)))
    messages = row.get(columns["prompt"])
    if isinstance(messages, list) and len(messages) > 1:
        return [*parts, *(_message_part(number, message, columns) for number, message in enumerate(messages, 1))]
    prompt = "\n\n".join(text_of(row.get(columns[name]), tag) for name in ("prompt", "query") if name in columns)
    return [*parts, PromptPart("Prompt", prompt)]


def _message_part(number: int, message: Any, columns: Mapping[str, str]) -> PromptPart:
    role, calls = "", ""
    if isinstance(message, dict):
        role, calls = str(message.get(columns.get("role_tag", "role"), "")), _plain(message.get("tool_calls"))
    return PromptPart(f"Message {number}: {role}", text_of(message, columns.get("content_tag")) + calls)


def _plain(value: Any) -> str:
    """A text as it is, and other values as JSON; empty without a value."""
    if isinstance(value, str) or not value:
        return value or ""
    return json.dumps(value, ensure_ascii=False, indent=2)


def question_text(row: Row, columns: dict[str, str]) -> str:
    """The question of a pair; if its row has none, the end of its prompt."""
    for name in ("input", "question", columns.get("query", "query")):
        if name not in columns.values() or name == columns.get("query"):
            text = text_of(row.get(name))
            if text.strip():
                return text
    prompt = text_of(row[columns["prompt"]], columns.get("content_tag"))
    return prompt[whole_end(prompt, max(0, len(prompt) - _END)) :]
