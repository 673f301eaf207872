"""`longpo export` and `longpo register --reviewed`: writes pairs, or all responses of a run, in another format."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from lf_longpo.data.review import Reviews, placed_pairs, reviewed_rows
from lf_longpo.errors import UserError, first_line
from lf_longpo.export.chosen_pairs import chosen_pairs
from lf_longpo.export.formats import KTO_ENTRY, both_labels, kto_rows, preference_rows, sharegpt_rows
from lf_longpo.export.hub_card import data_card
from lf_longpo.export.row_writer import write_rows
from lf_longpo.export.run_responses import answered_questions
from lf_longpo.files.faults import Faults, parsed, together
from lf_longpo.files.journal import Row, read_rows
from lf_longpo.plugin.dataset_files import first_rows
from lf_longpo.plugin.entries import check_loadable
from lf_longpo.plugin.registry import check_registration, register_dataset
from lf_longpo.plugin.row_shape import shape_of
from lf_longpo.run_folder.pair_sets import PairSet, find_pair_set
from lf_longpo.text.halves import refuse_halves

FORMS = {
    "pairs": "pairs with the columns of the data set",
    "trl-dpo": "pairs in TRL's preference format (prompt, chosen, rejected as messages)",
    "sharegpt": "pairs in LLaMA-Factory's sharegpt format (conversations, chosen, rejected as messages)",
    "trl-kto": "all scored responses in TRL's unpaired preference format (prompt and completion as messages, label)",
    "kto": "all scored responses in LLaMA-Factory's KTO format (prompt, completion, label)",
}
"""The formats of an export, with their descriptions."""


def export(
    name: str,
    form: str,
    target: Path,
    dataset_dir: Path,
    threshold: float | None = None,
    reviewed: Counter[str] | None = None,
    only_accepted: bool = False,
) -> tuple[int, PairSet]:
    """Writes a data set in another format.

    Args:
        name: a run's folder, a file of pairs, or a registered data set.
        form: one of `FORMS`.
        target: the .jsonl or .parquet file to write.
        dataset_dir: the folder with the dataset_info.json of registered data sets.
        threshold: for KTO, see `kto_rows`.
        reviewed: applies the review decisions if it is given; gets the number of pairs by decision, see
            `reviewed_rows`.
        only_accepted: whether the review also removes undecided pairs.

    Returns:
        The number of rows, and the set of pairs that was read.

    Raises:
        UserError: there is no such data set, or it does not fit the format; nothing was written.
    """
    pairs = find_pair_set(name, dataset_dir)
    if target.resolve() == pairs.path.resolve():
        raise UserError(f"{target} is the data set itself; name another file")
    return write_rows(target, _rows(pairs, form, threshold, reviewed, only_accepted)), pairs


def register_reviewed(
    source: str, dataset_dir: Path, name: str, overwrite: bool, only_accepted: bool = False
) -> tuple[Path, Counter[str]]:
    """Applies the review decisions to a data set, and registers the result with the same columns and format.

    Args:
        source: a run's folder, a file of pairs, or a registered data set.
        dataset_dir: the folder with the dataset_info.json; the new file is written there.
        name: the name of the new data set.
        overwrite: whether an existing file or entry of that name may be replaced.
        only_accepted: whether undecided pairs are removed, too.

    Returns:
        The file, and the number of pairs by decision, see `reviewed_rows`.

    Raises:
        UserError: there is no such data set, it has no decisions, or the name is taken; nothing was written.
    """
    pairs = find_pair_set(source, dataset_dir)
    target = dataset_dir / f"{name}.jsonl"
    entry = {**{key: value for key, value in pairs.entry.items() if key != "folder"}, "file_name": target.name}
    if target.resolve() == pairs.path.resolve():
        raise UserError(f"--name: {target} is the data set itself; choose another name")
    if target.exists() and not overwrite:
        raise UserError(f"--name: {target} already exists; choose another name or pass --overwrite")
    if pairs.path.stat().st_size:  # a run without pairs can have pairs that a reviewer has chosen
        check_loadable(first_rows(pairs.path), entry)
    check_registration(dataset_dir, name, entry, overwrite)
    counts: Counter[str] = Counter()
    faults = Faults("pairs")
    write_rows(target, _writable(_reviewed(pairs, counts, faults, only_accepted), faults))
    register_dataset(dataset_dir, name, entry, overwrite)
    return target, counts


def _rows(
    pairs: PairSet, form: str, threshold: float | None, reviewed: Counter[str] | None, only_accepted: bool
) -> Iterator[Row]:
    if form in ("kto", "trl-kto"):
        if pairs.run is None:
            raise UserError(
                f"--to {form} exports all responses of a run; name the run's folder instead of {pairs.name}"
            )
        if reviewed is not None:
            raise UserError(f"--reviewed applies to pairs, but --to {form} exports all responses; remove --reviewed")
        system = pairs.run.config.system
        return both_labels(kto_rows(answered_questions(pairs.run), threshold, form == "trl-kto", system))
    if threshold is not None:
        raise UserError("--threshold applies to --to kto and trl-kto only; remove it")
    faults = Faults("pairs")
    if reviewed is not None:
        placed = _reviewed(pairs, reviewed, faults, only_accepted)
    else:
        placed = placed_pairs(pairs.path, pairs.columns, faults)
    makers = {"trl-dpo": preference_rows, "sharegpt": sharegpt_rows}
    if form in makers:
        placed = makers[form](placed, pairs.columns, shape_of(pairs.entry).tags, faults)
    return _writable(placed, faults)


def _reviewed(pairs: PairSet, counts: Counter[str], faults: Faults, only_accepted: bool) -> Iterator[tuple[str, Row]]:
    """The reviewed pairs, and after them those that were chosen on the pages of questions, counted as `choose`."""
    reviews = Reviews(pairs.decisions)
    choices = reviews.choices()
    if choices and pairs.run is None:
        raise UserError(
            f"{reviews.path} holds pairs that were chosen from the questions of a run; name the run's folder instead "
            f"of {pairs.name}"
        )
    yield from reviewed_rows(pairs.path, reviews, pairs.columns, counts, faults, only_accepted)
    if pairs.run and choices:
        rows = list(islice(read_rows(pairs.path), 1))
        with_pair = {row["id"] for row in read_rows(pairs.path)}
        list_answers = bool(rows) and isinstance(rows[0].get("answer"), list)
        for placed in chosen_pairs(pairs.run, choices, with_pair, list_answers):
            counts["choose"] += 1
            counts["kept"] += 1
            yield placed
        counts["gone"] += len(choices) - counts["choose"]


def _writable(placed: Iterable[tuple[str, Row]], faults: Faults) -> Iterator[Row]:
    """The rows; after the last row, one error for all pairs that cannot be used."""
    return together(parsed(placed, refuse_halves, faults), faults)


def register_kto(dataset_dir: Path, name: str, target: Path, pairs: PairSet) -> None:
    """Registers a file in the format `kto` with LLaMA-Factory.

    Args:
        dataset_dir: the folder with the dataset_info.json.
        name: the name of the data set.
        target: the file.
        pairs: the set of pairs that it was made from.

    Raises:
        UserError: see `register_dataset`.
    """
    file_name = Path(os.path.relpath(target, dataset_dir)).as_posix()
    system = {"system": "system"} if "system" in pairs.columns else {}
    register_dataset(dataset_dir, name, {"file_name": file_name, "columns": KTO_ENTRY | system})


def push(repository: str, target: Path, rows: int, form: str, pairs: PairSet, private: bool) -> str:
    """Uploads an exported file and a data card to a repository on the hub, with the token in HF_TOKEN.

    Args:
        repository: its name, such as `org/name`; created if it is missing.
        target: the exported file.
        rows: the number of rows in it.
        form: one of `FORMS`.
        pairs: the set of pairs that it was made from.
        private: whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        UserError: the upload failed; the exported file stays.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            card = Path(folder) / "README.md"
            card.write_text(data_card(repository, target, rows, FORMS[form], pairs.run), encoding="utf-8")
            for path in (target, card):
                api.upload_file(path_or_fileobj=path, path_in_repo=path.name, repo_id=repository, repo_type="dataset")
    except Exception as error:  # the library raises errors of many types
        fix = f"{target} is written; check HF_TOKEN and the name, then export again"
        raise UserError(f"--push-to-hub {repository}: {first_line(error)}; {fix}") from None
    return str(url)
