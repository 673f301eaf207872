"""The data sets of a recipe: loaded as LLaMA-Factory loads them, with findings on entries, files and columns."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.errors import UserError, first_line
from lf_longpo.plugin.check.findings import Findings, nearest
from lf_longpo.plugin.check.json_load_fault import load_fault
from lf_longpo.plugin.check.producing_commands import command_for_dataset
from lf_longpo.plugin.column_guess import unread_columns
from lf_longpo.plugin.compat import load_raw_dataset
from lf_longpo.plugin.recipe import Arguments
from lf_longpo.plugin.registry import DATASET_INFO, load_dataset_info
from lf_longpo.plugin.row_shape import COLUMNS, Shape, shape_of

if TYPE_CHECKING:
    from datasets import Dataset
    from llamafactory.data.parser import DatasetAttr

# Columns that LLaMA-Factory reads in every format if an entry names them.
_COMMON_COLUMNS = ("system", "tools", "images", "videos", "audios")
_NEEDED_TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag")


class RawDataset(NamedTuple):
    """A registered data set after loading, before LLaMA-Factory converts its rows.

    Attributes:
        name: in dataset_info.json.
        attr: the entry as LLaMA-Factory parses it.
        shape: the entry as `row_shape` parses it.
        rows: with the data set's columns.
    """

    name: str
    attr: "DatasetAttr"
    shape: Shape
    rows: "Dataset"


def load_datasets(recipe: Path, run: Arguments, findings: Findings) -> list[RawDataset]:
    """Loads the data sets of a recipe with LLaMA-Factory's loader and reports what is wrong with each.

    Args:
        recipe: its path; recipes next to it show which command makes a missing data set.
        run: the recipe as LLaMA-Factory sees it.
        findings: gets the results.
    """
    from llamafactory.extras.misc import has_tokenized_data

    if run.data.tokenized_path and has_tokenized_data(run.data.tokenized_path):
        findings.warn("tokenized_path", "holds tokenized data; LLaMA-Factory uses it unchanged, and it is not checked")
        return []
    folder = run.data.dataset_dir
    if isinstance(folder, dict) or folder == "ONLINE" or str(folder).startswith("REMOTE:"):
        findings.warn("dataset_dir", f"is {folder}; data sets that are not in a local {DATASET_INFO} are not checked")
        return []
    try:
        info = load_dataset_info(folder)
    except UserError as error:
        findings.error("dataset_dir", str(error))
        return []
    if not info:
        findings.error(
            "dataset_dir", f"{Path(folder) / DATASET_INFO} is missing or empty; add entries with longpo register"
        )
        return []
    names = [*(run.data.dataset or []), *(run.data.eval_dataset or [])]
    loaded = (_load(name, info, recipe, run, findings) for name in names)
    return [dataset for dataset in loaded if dataset is not None]


def _load(name: str, info: dict[str, Any], recipe: Path, run: Arguments, findings: Findings) -> RawDataset | None:
    registry = Path(run.data.dataset_dir) / DATASET_INFO
    made_by = command_for_dataset(name, recipe)
    if name not in info:
        fix = (
            f"; make it with `{made_by}`"
            if made_by
            else f"{nearest(name, info)}; register a file with longpo register (longpo generate registers its own)"
        )
        findings.error(
            f"dataset {name}",
            f"is not registered in {registry}{fix}",
        )
        return None
    shape = shape_of(info[name])
    attr = _usable_attr(name, shape, made_by, run, findings)
    rows = _loaded_rows(name, attr, run, findings) if attr else None
    if rows is None:
        return None
    missing = _missing_columns(shape, rows.column_names, answered=run.data_stage not in ("pt", "ppo"))
    for column, named in missing:
        findings.error(
            f"dataset {name}",
            f"has no column {named!r} for {column}; it has {', '.join(rows.column_names)}; name it under columns in "
            f"{registry} (longpo register --columns {column}=NAME)",
        )
    if missing:
        return None
    for column in unread_columns(rows.column_names, shape):
        if any(rows[column]):
            findings.warn(
                f"dataset {name}",
                f"has a column {column!r} that its entry does not name, so training ignores it; add it under "
                f"columns in {registry}",
            )
    return RawDataset(name, attr, shape, rows)


def _usable_attr(name: str, shape: Shape, made_by: str, run: Arguments, findings: Findings) -> "DatasetAttr | None":
    """The entry as LLaMA-Factory parses it; None, with a finding, if this run cannot use it."""
    from llamafactory.data.converter import DATASET_CONVERTERS
    from llamafactory.data.parser import get_dataset_list

    where, folder = f"dataset {name}", Path(run.data.dataset_dir)
    try:
        (attr,) = get_dataset_list([name], run.data.dataset_dir)
    except (KeyError, ValueError) as error:
        findings.error(where, f"its entry in {DATASET_INFO} cannot be used: {error}; fix the entry")
        return None
    missing_tags = [tag for tag in _NEEDED_TAGS if tag not in shape.tags]
    if attr.formatting not in DATASET_CONVERTERS:
        findings.error(where, f"its formatting is {attr.formatting!r}; set one of {', '.join(DATASET_CONVERTERS)}")
    elif attr.formatting != "alpaca" and missing_tags:
        findings.error(
            where,
            f"its entry names some tags but not {', '.join(missing_tags)}, and LLaMA-Factory then has no defaults for "
            f"the others; add them under tags in {folder / DATASET_INFO}",
        )
    elif attr.ranking != (run.data_stage == "rm"):
        kind = "pairs (ranking: true)" if attr.ranking else "no pairs (no ranking: true in its entry)"
        needed = "pairs" if run.data_stage == "rm" else "single responses"
        message = f"holds {kind}, but stage {run.finetuning.stage} needs {needed}; change the stage or the data set"
        findings.error(where, message)
    elif attr.load_from == "file" and not (folder / attr.dataset_name).exists():
        fix = f"make it with `{made_by}`" if made_by else f"add it, or correct the entry in {folder / DATASET_INFO}"
        findings.error(where, f"its file {folder / attr.dataset_name} is missing; {fix}")
    elif run.data.streaming and attr.load_from != "file":
        findings.warn(where, "is streamed from the hub or a cloud; its rows are not checked")
    else:
        return attr
    return None


def _loaded_rows(name: str, attr: "DatasetAttr", run: Arguments, findings: Findings) -> "Dataset | None":
    """The rows by LLaMA-Factory's loader; None, with a finding, if it fails or there are none."""
    where = f"dataset {name}"
    try:
        rows = load_raw_dataset(attr, run.model, replace(run.data, streaming=False), run.training)
    except Exception as error:  # datasets and its readers raise many kinds for data that cannot be loaded
        local = attr.load_from == "file"
        reason = (local and load_fault((Path(run.data.dataset_dir) / attr.dataset_name).resolve())) or first_line(error)
        report = findings.error if local else findings.warn
        report(where, f"cannot be loaded from here: {reason}; its rows are not checked")
        return None
    if not len(rows):
        findings.error(where, "is empty; add rows, or remove it from the recipe")
        return None
    return rows


def _missing_columns(shape: Shape, present: list[str], answered: bool) -> list[tuple[str, str]]:
    """Columns that LLaMA-Factory will read but the data set does not have: LLaMA-Factory's name, the data set's name.

    Args:
        shape: of the entry.
        present: the data set's columns.
        answered: whether the stage trains on responses.
    """
    if shape.formatting == "alpaca":
        # LLaMA-Factory does not read the column of a single response from pairs.
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
        elif named and named not in present and column in (*needed, *asked, *_COMMON_COLUMNS):
            missing.append((column, named))
    return missing
