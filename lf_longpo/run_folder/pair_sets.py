"""Sets of pairs by name: a data set's file with its columns, and the run that made it if there is one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lf_longpo.data.pairs import PAIRS
from lf_longpo.data.review import decisions_of, text_of
from lf_longpo.errors import UserError
from lf_longpo.files.journal import Row
from lf_longpo.files.run_dir import CONFIG
from lf_longpo.plugin.dataset_files import first_rows
from lf_longpo.plugin.entries import guess_entry
from lf_longpo.plugin.registry import DATASET_INFO, RANKING_COLUMNS, load_dataset_info, ranking_entry
from lf_longpo.run_folder.contents import RunFolder

_KNOWN = ("prompt", "query", "system", "history", "tools", "chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Viewed:
    """Pairs to look at."""

    name: str
    path: Path
    """A .jsonl file."""
    entry: dict[str, Any]
    """How LLaMA-Factory is told to read it, but for its place."""
    columns: dict[str, str]
    """LLaMA-Factory's names of the columns (prompt, query, system, history, tools, chosen, rejected) to the file's."""
    decisions: Path
    """Where people's decisions about it are."""
    run: RunFolder | None
    """Knows what each response was shown, or judged by."""


def find_viewed(name: str, dataset_dir: Path) -> Viewed:
    """The pairs that are meant.

    Args:
        name: a run's folder, a .jsonl file of pairs, or the name of a registered data set.
        dataset_dir: where it is registered.

    Raises:
        UserError: there are none of that name, or they are no pairs in a .jsonl file.
    """
    folder = Path(name)
    if (folder / CONFIG).is_file():
        run = RunFolder(folder)
        registered = run.data_set
        # Decisions are about what training reads; while the run goes on there may be pairs that are not registered yet.
        path = registered if registered.is_file() and run.summary() else folder / PAIRS
        if not path.is_file():
            raise UserError(f"{folder} has no pairs yet")
        entry = ranking_entry(registered.name)
        # The same place for both: decisions stay while a run ends or goes on.
        return Viewed(run.config.dataset_name, path, entry, dict(RANKING_COLUMNS), decisions_of(registered), run)
    if folder.is_dir():
        raise UserError(f"{folder} holds no run: {CONFIG} is missing; name a run's folder, a file or a data set")
    entry = load_dataset_info(dataset_dir).get(name)
    if entry is None and not folder.is_file():
        raise UserError(f"no run, file or data set {name!r} (in {dataset_dir / DATASET_INFO}); check the name")
    path = folder if entry is None else dataset_dir / str(entry.get("file_name"))
    if path.suffix != ".jsonl" or not path.is_file():
        raise UserError(f"{name}: {path} is no .jsonl file here; only such data sets can be viewed")
    entry = entry or guess_entry(first_rows(path), path.parent)
    if not entry.get("ranking"):
        raise UserError(f"{name} is no data set of pairs: it has no chosen and rejected responses")
    columns = dict(entry.get("columns") or {})
    if entry.get("formatting") == "sharegpt":
        columns = {"prompt": columns.get("messages", "conversations"), **columns}
    known = {ours: theirs for ours, theirs in columns.items() if ours in _KNOWN}
    return Viewed(name, path, entry, {**RANKING_COLUMNS, **known}, decisions_of(path), None)


def prompt_of(row: Row, columns: Mapping[str, str]) -> str:
    """The text of a pair's prompt, to be read."""
    return "\n\n".join(text_of(row.get(columns[name])) for name in ("prompt", "query") if name in columns)
