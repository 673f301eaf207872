"""`longpo export`: a data set of pairs, or all responses of a run, for other trainers and for the hub."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from lf_longpo.data.review import Reviews, placed_pairs, reviewed_rows
from lf_longpo.errors import UserError, first_line
from lf_longpo.export.formats import KTO_ENTRY, both_labels, kto_rows, preference_rows, sharegpt_rows
from lf_longpo.export.hub_card import data_card
from lf_longpo.export.row_files import write_rows
from lf_longpo.export.scored_responses import answered
from lf_longpo.files.faults import Faults, parsed, together
from lf_longpo.files.journal import Row
from lf_longpo.plugin.dataset_files import first_rows
from lf_longpo.plugin.entries import check_loadable
from lf_longpo.plugin.registry import check_registration, register_dataset
from lf_longpo.plugin.row_shape import shape_of
from lf_longpo.run_folder.pair_sets import Viewed, find_viewed
from lf_longpo.text.halves import refuse_halves

FORMS = {
    "pairs": "pairs as they are",
    "trl-dpo": "pairs in TRL's preference form (prompt, chosen, rejected as messages)",
    "sharegpt": "pairs in LLaMA-Factory's sharegpt form (conversations, chosen, rejected as messages)",
    "trl-kto": "all scored responses in TRL's unpaired form (prompt and completion as messages, label)",
    "kto": "all scored responses for LLaMA-Factory's KTO (prompt, completion, label)",
}
"""What rows can be made, and what they are."""


def export(
    name: str, form: str, target: Path, dataset_dir: Path, threshold: float | None = None, reviewed: bool = False
) -> tuple[int, Viewed]:
    """Writes a data set in another form; gives the number of rows and what they were made of.

    Args:
        name: a run's folder, a file of pairs, or a registered data set.
        form: one of `FORMS`.
        target: the .jsonl or .parquet file to write.
        dataset_dir: where data sets are registered.
        threshold: for KTO, see `kto_rows`.
        reviewed: whether decisions about pairs are followed.

    Raises:
        UserError: there is no such data set, or the form needs a run; nothing was written.
    """
    viewed = find_viewed(name, dataset_dir)
    if target.resolve() == viewed.path.resolve():
        raise UserError(f"{target} is the data set itself; name another file")
    return write_rows(target, _rows(viewed, form, threshold, reviewed)), viewed


def register_reviewed(source: str, dataset_dir: Path, name: str, overwrite: bool) -> tuple[Path, Counter[str]]:
    """Writes a data set as it was decided about, and registers it in the shape of the one that it is made of.

    Args:
        source: a run's folder, a file of pairs, or a registered data set.
        dataset_dir: where data sets are registered; the file is written there.
        name: of the reviewed one.
        overwrite: whether a file or an entry of that name may be replaced.

    Returns:
        The file, and its pairs by decision, see `reviewed_rows`.

    Raises:
        UserError: there is no such data set, nothing was decided about it, or the name is taken; nothing was written.
    """
    viewed = find_viewed(source, dataset_dir)
    target = dataset_dir / f"{name}.jsonl"
    entry = {**{key: value for key, value in viewed.entry.items() if key != "folder"}, "file_name": target.name}
    if target.resolve() == viewed.path.resolve():
        raise UserError(f"--name: {target} is the data set itself; choose another name")
    if target.exists() and not overwrite:
        raise UserError(f"--name: {target} is there already; choose another name or pass --overwrite")
    check_loadable(first_rows(viewed.path), entry)
    check_registration(dataset_dir, name, entry, overwrite)
    told: Counter[str] = Counter()
    faults = Faults("pairs")
    rows = reviewed_rows(viewed.path, Reviews(viewed.decisions), viewed.columns, told, faults)
    write_rows(target, _writable(rows, faults))
    register_dataset(dataset_dir, name, entry, overwrite)
    return target, told


def _rows(viewed: Viewed, form: str, threshold: float | None, reviewed: bool) -> Iterator[Row]:
    if form in ("kto", "trl-kto"):
        if viewed.run is None:
            raise UserError(f"{form} takes all responses of a run: name the run's folder in the place of {viewed.name}")
        if reviewed:
            raise UserError(f"--reviewed: decisions are about pairs, and {form} takes all responses; leave it out")
        return both_labels(kto_rows(answered(viewed.run), threshold, form == "trl-kto"))
    if threshold is not None:
        raise UserError("--threshold goes with kto and trl-kto")
    faults = Faults("pairs")
    if reviewed:
        placed = reviewed_rows(viewed.path, Reviews(viewed.decisions), viewed.columns, Counter(), faults)
    else:
        placed = placed_pairs(viewed.path, viewed.columns, faults)
    makers = {"trl-dpo": preference_rows, "sharegpt": sharegpt_rows}
    if form in makers:
        placed = makers[form](placed, viewed.columns, shape_of(viewed.entry).tags, faults)
    return _writable(placed, faults)


def _writable(placed: Iterable[tuple[str, Row]], faults: Faults) -> Iterator[Row]:
    """The rows; in the end one error for all pairs that cannot be used."""
    return together(parsed(placed, refuse_halves, faults), faults)


def register_kto(dataset_dir: Path, name: str, target: Path) -> None:
    """Registers a file of the form `kto` with LLaMA-Factory.

    Raises:
        UserError: see `register_dataset`.
    """
    file_name = Path(os.path.relpath(target, dataset_dir)).as_posix()
    register_dataset(dataset_dir, name, {"file_name": file_name, "columns": dict(KTO_ENTRY)})


def push(repository: str, target: Path, rows: int, form: str, viewed: Viewed, private: bool) -> str:
    """Uploads an exported file with a data card to a hub repository; the token is the hub's own (HF_TOKEN).

    Raises:
        UserError: the hub refused, or is not to be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            card = Path(folder) / "README.md"
            card.write_text(data_card(repository, target, rows, FORMS[form], viewed.run), encoding="utf-8")
            for path, place in ((target, target.name), (card, card.name)):
                api.upload_file(path_or_fileobj=path, path_in_repo=place, repo_id=repository, repo_type="dataset")
    except Exception as error:  # of many kinds, all meaning that it is not there
        raise UserError(f"--push-to-hub {repository}: {first_line(error)}; {target} is written") from None
    return str(url)
