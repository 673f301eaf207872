"""The data set that a run registers: where it is, and how the end of the run changes it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lf_longpo.config import GenerateConfig, LongRewardGenerateConfig
from lf_longpo.data.pairs import Pairs, question_of_pair
from lf_longpo.data.review import PAIR, SIDES, Decision, Reviews, decisions_of, pair_digest
from lf_longpo.engine.pipeline import Tally
from lf_longpo.errors import UserError
from lf_longpo.files.journal import Row, read_rows, write_whole
from lf_longpo.plugin.registry import check_registration, ranking_entry, register_dataset, unregister_dataset

Registration = Literal["written", "kept", "removed", "none"]


def data_set_of(config: GenerateConfig) -> Path:
    """The file that holds the run's pairs for training."""
    return config.dataset_dir / f"{config.dataset_name}.jsonl"


def entry_of(config: GenerateConfig) -> dict[str, Any]:
    """The entry of the run's data set for dataset_info.json."""
    return ranking_entry(data_set_of(config).name, system=config.system is not None)


def check_data_set(config: GenerateConfig) -> None:
    """Finds, before any work, what would keep the data set from being written.

    Raises:
        UserError: the data folder or the name cannot be used, or the file is an input of the run.
    """
    target = data_set_of(config)
    check_registration(config.dataset_dir, config.dataset_name, entry_of(config))
    responses = config.responses if isinstance(config, LongRewardGenerateConfig) else None
    if target.resolve() in {Path(source).resolve() for source in (config.input, responses) if source}:
        raise UserError(f"the pairs would be written over the input {target}; set another dataset_name or dataset_dir")


def reviewed_pairs(config: GenerateConfig) -> dict[tuple[str, ...], Decision]:
    """The review decisions about the pairs in the run's data set, by id, chosen and rejected response of the pair."""
    decisions = Reviews(decisions_of(data_set_of(config))).all()
    if not decisions:
        return {}
    found = {_responses(row): decisions.get(digest) for row, digest in _registered(config)}
    return {responses: decision for responses, decision in found.items() if decision}


def keep_decisions(config: GenerateConfig, before: Mapping[tuple[str, ...], Decision]) -> int:
    """Keeps decisions about pairs that were recreated with the same responses: their contexts may be cut elsewhere.

    Args:
        config: the run's.
        before: the decisions about the data set before it was written, see `reviewed_pairs`.

    Returns:
        The number of reviewed pairs that are no longer in the data set.
    """
    if not before:
        return 0
    reviews, found = Reviews(decisions_of(data_set_of(config))), set()
    for row, digest in _registered(config):
        if decision := before.get(responses := _responses(row)):
            found.add(responses)
            if reviews.of(digest) != decision:
                reviews.decide(digest, row["id"], decision)
    reviews.close()
    return len(before.keys() - found)


def _registered(config: GenerateConfig) -> Iterator[tuple[Row, str]]:
    """The pairs in the run's data set, each with its digest."""
    columns = entry_of(config)["columns"]
    return ((row, pair_digest(row, columns)) for row in read_rows(data_set_of(config), PAIR))


def _responses(row: Row) -> tuple[str, ...]:
    return row["id"], *(row[side] for side in SIDES)


def register_pairs(config: GenerateConfig, ids: Sequence[str], pairs: Pairs, tally: Tally) -> Registration:
    """Writes and registers a run's pairs. Pairs of other questions in the registered file are not compared.

    Args:
        config: the run's.
        ids: its questions, in order.
        pairs: the pairs of this start and of earlier starts.
        tally: how its questions ended.

    Returns:
        `written`: the file holds the run's pairs. `kept`: the file stays as it was, because it holds pairs that the
        run has not recreated yet (it ended early, or questions failed). `removed`: the run ended without any pair, so
        that the pairs in the file were out of date. `none`: there is no pair, and no file.
    """
    target = data_set_of(config)
    made = pairs.ids(ids)
    registered = {question_of_pair(row) for row in read_rows(target)} & set(ids)
    ended = not (tally.interrupted or tally.unfinished)
    if not ended and registered - set(made):
        return "kept"
    if made:
        write_whole(target, pairs.lines(ids))
        register_dataset(config.dataset_dir, config.dataset_name, entry_of(config))
        return "written"
    if registered and ended and tally.failed == pairs.unfit:
        unregister_dataset(config.dataset_dir, config.dataset_name)
        target.unlink()
        return "removed"
    return "kept" if registered else "none"
