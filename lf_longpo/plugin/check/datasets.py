"""The recipe's data sets: registered, there, and with the columns that their entries name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.errors import UserError, first_line
from lf_longpo.plugin.check.findings import Findings, nearest
from lf_longpo.plugin.check.load_fault import load_fault
from lf_longpo.plugin.check.makers import dataset_maker
from lf_longpo.plugin.guess import unread_columns
from lf_longpo.plugin.recipe import Arguments
from lf_longpo.plugin.registry import DATASET_INFO, load_dataset_info
from lf_longpo.plugin.shape import COLUMNS, Shape, shape_of

if TYPE_CHECKING:
    from datasets import Dataset
    from llamafactory.data.parser import DatasetAttr

# Columns that LLaMA-Factory asks for in every format where an entry names them.
_COMMON_COLUMNS = ("system", "tools", "images", "videos", "audios")
_NEEDED_TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag")


class RawDataset(NamedTuple):
    """One registered data set as it was loaded, before LLaMA-Factory converts its rows.

    Attributes:
        name: its name in dataset_info.json.
        attr: LLaMA-Factory's reading of its entry.
        shape: ours.
        rows: its rows with their own columns.
    """

    name: str
    attr: "DatasetAttr"
    shape: Shape
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
    registry = Path(run.data.dataset_dir) / DATASET_INFO
    made_by = dataset_maker(name, recipe)
    if name not in info:
        registers = (
            f"; make it with `{made_by}`"
            if made_by
            else f"{nearest(name, info)}; longpo generate registers what it makes, longpo register a file of yours"
        )
        findings.error(
            f"dataset {name}",
            f"is not registered in {registry}{registers}",
        )
        return None
    shape = shape_of(info[name])
    attr = _usable_attr(name, shape, made_by, run, findings)
    rows = _loaded_rows(name, attr, run, findings) if attr else None
    if rows is None:
        return None
    missing = _missing_columns(shape, rows.column_names, answered=run.data_stage not in ("pt", "ppo"))
    for column, theirs in missing:
        findings.error(
            f"dataset {name}",
            f"has no column {theirs!r} for {column}; it has {', '.join(rows.column_names)}; name it under columns in "
            f"{registry} (longpo register --columns {column}=NAME)",
        )
    if missing:
        return None
    for column in unread_columns(rows.column_names, shape):
        if any(rows[column]):
            findings.warn(
                f"dataset {name}",
                f"has a column {column!r} that its entry does not name, so training does not see it; add it under "
                f"columns in {registry}",
            )
    return RawDataset(name, attr, shape, rows)


def _usable_attr(name: str, shape: Shape, made_by: str, run: Arguments, findings: Findings) -> "DatasetAttr | None":
    """LLaMA-Factory's reading of an entry, or None, reported, where this run cannot use it."""
    from llamafactory.data.converter import DATASET_CONVERTERS
    from llamafactory.data.parser import get_dataset_list

    where, folder = f"dataset {name}", Path(run.data.dataset_dir)
    try:
        (attr,) = get_dataset_list([name], run.data.dataset_dir)
    except (KeyError, ValueError) as error:
        findings.error(where, f"its entry in {DATASET_INFO} cannot be used: {error}")
        return None
    missing_tags = [tag for tag in _NEEDED_TAGS if tag not in shape.tags]
    if attr.formatting not in DATASET_CONVERTERS:
        findings.error(where, f"its formatting {attr.formatting!r} is none of {', '.join(DATASET_CONVERTERS)}")
    elif attr.formatting != "alpaca" and missing_tags:
        findings.error(
            where,
            f"its entry names some tags but not {', '.join(missing_tags)}, and LLaMA-Factory has no defaults for the "
            f"others then; add them under tags in {folder / DATASET_INFO}",
        )
    elif attr.ranking != (run.data_stage == "rm"):
        kind = "pairs (ranking: true)" if attr.ranking else "no pairs (no ranking: true in its entry)"
        wants = "pairs" if run.data_stage == "rm" else "single responses"
        findings.error(where, f"holds {kind}, but stage {run.finetuning.stage} wants {wants}")
    elif attr.load_from == "file" and not (folder / attr.dataset_name).exists():
        makes = f"; make it with `{made_by}`" if made_by else ""
        findings.error(where, f"its file {folder / attr.dataset_name} is missing{makes}")
    elif run.data.streaming and attr.load_from != "file":
        findings.warn(where, "is streamed from afar; its rows are not checked")
    else:
        return attr
    return None


def _loaded_rows(name: str, attr: "DatasetAttr", run: Arguments, findings: Findings) -> "Dataset | None":
    """The rows as LLaMA-Factory's loader gives them, or None, reported, where it fails or there are none."""
    where = f"dataset {name}"
    try:
        with _unconverted():
            from llamafactory.data.loader import _load_single_dataset

            rows = _load_single_dataset(attr, run.model, replace(run.data, streaming=False), run.training)
    except Exception as error:  # datasets and its readers raise many kinds, all meaning that it cannot be loaded
        local = attr.load_from == "file"
        reason = (local and load_fault((Path(run.data.dataset_dir) / attr.dataset_name).resolve())) or first_line(error)
        told = findings.error if local else findings.warn
        told(where, f"cannot be loaded from here: {reason}; its rows are not checked")
        return None
    if not len(rows):
        findings.error(where, "is empty")
        return None
    return rows


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


def _missing_columns(shape: Shape, there: list[str], answered: bool) -> list[tuple[str, str]]:
    """Columns that LLaMA-Factory will ask for and not find, under its name and the data set's.

    Args:
        shape: the entry.
        there: the data set's columns.
        answered: whether the stage trains on responses.
    """
    if shape.formatting == "alpaca":
        # Of pairs, LLaMA-Factory never looks at a single response's column.
        asked = ["prompt", "query", *([] if shape.ranking else ["response", "kto_tag"]), "history"]
        needed = ["prompt"]
    else:
        asked, needed = ["messages", *([] if shape.ranking else ["kto_tag"])], ["messages"]
    if shape.ranking:
        needed += ["chosen", "rejected"]
    elif shape.formatting == "alpaca" and answered:
        needed += ["response"]
    missing = []
    for column in COLUMNS:
        named = shape.columns.get(column)
        if column in needed and named is None:
            missing.append((column, column))
        elif named and named not in there and column in (*needed, *asked, *_COMMON_COLUMNS):
            missing.append((column, named))
    return missing
