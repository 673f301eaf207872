"""The recipe's data sets: registered, there, and with the columns that their entries name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.errors import UserError, first_line
from lf_longpo.plugin.check.findings import Findings, nearest
from lf_longpo.plugin.check.makers import dataset_maker
from lf_longpo.plugin.recipe import Arguments
from lf_longpo.plugin.registry import DATASET_INFO, load_dataset_info

if TYPE_CHECKING:
    from datasets import Dataset
    from llamafactory.data.parser import DatasetAttr

_TEXT_COLUMNS = ("prompt", "query", "response", "history", "messages", "system", "tools", "chosen", "rejected")


class RawDataset(NamedTuple):
    """One registered data set as it was loaded, before LLaMA-Factory converts its rows.

    Attributes:
        name: its name in dataset_info.json.
        attr: LLaMA-Factory's reading of its entry.
        rows: its rows with their own columns.
    """

    name: str
    attr: "DatasetAttr"
    rows: "Dataset"


def load_datasets(recipe: Path, run: Arguments, findings: Findings) -> list[RawDataset]:
    """Loads the training sets that a recipe names, by LLaMA-Factory's loader; reports what is amiss with each.

    Args:
        recipe: its path; recipes next to it tell which command makes a missing set.
        run: the recipe as LLaMA-Factory sees it.
        findings: takes what is found.
    """
    from llamafactory.extras.misc import has_tokenized_data

    if run.data.tokenized_path and has_tokenized_data(run.data.tokenized_path):
        findings.warn("tokenized_path", "holds finished data; LLaMA-Factory takes it as it is, and nothing is checked")
        return []
    folder = run.data.dataset_dir
    if isinstance(folder, dict) or folder == "ONLINE" or str(folder).startswith("REMOTE:"):
        findings.warn("dataset_dir", f"is {folder}: data sets outside a local {DATASET_INFO} are not looked at")
        return []
    try:
        info = load_dataset_info(folder)
    except UserError as error:
        findings.error("dataset_dir", str(error))
        return []
    if not info:
        findings.error(
            "dataset_dir", f"{Path(folder) / DATASET_INFO} is missing or empty; longpo register makes entries"
        )
        return []
    names = [*(run.data.dataset or []), *(run.data.eval_dataset or [])]
    loaded = (_load(name, info, recipe, run, findings) for name in names)
    return [dataset for dataset in loaded if dataset is not None]


def _load(name: str, info: dict[str, Any], recipe: Path, run: Arguments, findings: Findings) -> RawDataset | None:
    from llamafactory.data.converter import DATASET_CONVERTERS
    from llamafactory.data.parser import get_dataset_list

    made_by = dataset_maker(name, recipe)
    if name not in info:
        registers = (
            f"; make it with `{made_by}`"
            if made_by
            else f"{nearest(name, info)}; longpo generate registers what it makes, longpo register a file of yours"
        )
        findings.error(
            f"dataset {name}", f"is not registered in {Path(run.data.dataset_dir) / DATASET_INFO}{registers}"
        )
        return None
    try:
        (attr,) = get_dataset_list([name], run.data.dataset_dir)
    except (KeyError, ValueError) as error:
        findings.error(f"dataset {name}", f"its entry in dataset_info.json cannot be used: {error}")
        return None
    if attr.formatting not in DATASET_CONVERTERS:
        known = ", ".join(DATASET_CONVERTERS)
        findings.error(f"dataset {name}", f"its formatting {attr.formatting!r} is none of {known}")
        return None
    if attr.ranking != (run.data_stage == "rm"):
        kind = "pairs (ranking: true)" if attr.ranking else "no pairs (no ranking: true in its entry)"
        wants = "pairs" if run.data_stage == "rm" else "single responses"
        findings.error(f"dataset {name}", f"holds {kind}, but stage {run.finetuning.stage} wants {wants}")
        return None
    if attr.load_from == "file" and not (Path(run.data.dataset_dir) / attr.dataset_name).exists():
        makes = f"; make it with `{made_by}`" if made_by else ""
        findings.error(
            f"dataset {name}", f"its file {Path(run.data.dataset_dir) / attr.dataset_name} is missing{makes}"
        )
        return None
    if run.data.streaming and attr.load_from != "file":
        findings.warn(f"dataset {name}", "is streamed from afar; its rows are not checked")
        return None
    try:
        with _unconverted():
            from llamafactory.data.loader import _load_single_dataset

            rows = _load_single_dataset(attr, run.model, replace(run.data, streaming=False), run.training)
    except Exception as error:  # datasets and its readers raise many kinds, all meaning that it cannot be loaded
        told = findings.error if attr.load_from == "file" else findings.warn
        told(f"dataset {name}", f"cannot be loaded from here: {first_line(error)}; its rows are not checked")
        return None
    if not len(rows):
        findings.error(f"dataset {name}", "is empty")
        return None
    missing = _missing_columns(attr, rows.column_names, answered=run.data_stage not in ("pt", "ppo"))
    for column, theirs in missing:
        findings.error(
            f"dataset {name}",
            f"has no column {theirs!r} for {column}; it has {', '.join(rows.column_names)}; name it under columns in "
            f"{Path(run.data.dataset_dir) / DATASET_INFO} (longpo register --columns {column}=NAME)",
        )
    return None if missing else RawDataset(name, attr, rows)


@contextmanager
def _unconverted() -> Iterator[None]:
    """Lets LLaMA-Factory's loader give rows as they are: its conversion would fail without naming row or column."""
    from llamafactory.data import loader

    align = loader.align_dataset
    loader.align_dataset = lambda dataset, *_: dataset
    try:
        yield
    finally:
        loader.align_dataset = align


def _missing_columns(attr: "DatasetAttr", there: list[str], answered: bool) -> list[tuple[str, str]]:
    """Columns that LLaMA-Factory will ask for and not find, under its name and the data set's.

    Args:
        attr: the entry.
        there: the data set's columns.
        answered: whether the stage trains on responses.
    """
    if attr.formatting == "alpaca":
        # Of pairs, LLaMA-Factory never looks at a single response's column.
        asked = ["prompt", "query", *([] if attr.ranking else ["response"]), "history", "system", "tools"]
        needed = ["prompt"]
    else:
        asked, needed = ["messages", "system", "tools"], ["messages"]
    if attr.ranking:
        needed += ["chosen", "rejected"]
    elif attr.formatting == "alpaca" and answered:
        needed += ["response"]
    missing = []
    for column in _TEXT_COLUMNS:
        named = getattr(attr, column)
        if (column in needed and named is None) or (column in (*asked, *needed) and named and named not in there):
            missing.append((column, named or column))
    return missing
