"""Copies of data sets in which no question is lost: contexts are cut in their middle until examples fit cutoff_len."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.errors import TextTooLong, UserError
from lf_longpo.files.journal import write_whole
from lf_longpo.plugin.check.datasets import RawDataset
from lf_longpo.plugin.check.examples import Encoder, Measured
from lf_longpo.plugin.check.recipe_check import Checked
from lf_longpo.plugin.check.template import Encoding
from lf_longpo.plugin.recipe import Arguments
from lf_longpo.plugin.registry import check_registration, load_dataset_info, register_dataset
from lf_longpo.plugin.row_shape import Shape
from lf_longpo.text.chunking import token_starts
from lf_longpo.text.fitting import without_middle

# Tokens to which a text is cut at most: a shorter rest may have lost the question.
_LEAST = 32


class Fixed(NamedTuple):
    """A copy that was written.

    Attributes:
        name: of the copy in dataset_info.json.
        path: of its file.
        cut: number of examples that were cut.
        left_out: numbers, from 1, of rows that were skipped: they are too long without contexts, or not usable.
        evaluates: whether it is an evaluation set.
    """

    name: str
    path: Path
    cut: int
    left_out: list[int]
    evaluates: bool


def fix_lengths(checked: Checked) -> list[Fixed]:
    """Writes and registers a copy of each data set next to the others, as `<name>_fit<cutoff_len>`.

    The longest texts of a prompt are cut in their middle: a question is at the end or in its own text, and instructions
    are at the start. Trained answers, tool calls and descriptions of tools stay whole. Rows that fit are copied
    unchanged. If no copy can be made, the findings get an error and nothing is written.
    """
    copies: list[Fixed] = []
    if checked.run is None or checked.encoding is None:
        return copies
    for dataset, measured in checked.datasets:
        try:
            copies.append(_fixed_copy(dataset, measured, checked.run, checked.encoding))
        except UserError as error:
            checked.findings.error(f"dataset {dataset.name}", str(error))
    return copies


def _fixed_copy(dataset: RawDataset, measured: Measured, run: Arguments, encoding: Encoding) -> Fixed:
    """Writes and registers one copy.

    Raises:
        UserError: the copy's name has an entry of another shape, or no row can be kept.
    """
    name = f"{dataset.name}_fit{run.data.cutoff_len}"
    folder = Path(run.data.dataset_dir)
    entry = load_dataset_info(folder)[dataset.name]
    kept = {key: entry[key] for key in ("formatting", "ranking", "columns", "tags") if key in entry}
    entry = {"file_name": f"{name}.jsonl"} | kept
    check_registration(folder, name, entry)
    encoder = Encoder(dataset, run, encoding)
    cut, left_out = 0, []

    def lines() -> Iterator[str]:
        nonlocal cut
        lengths = iter(measured.whole)
        for number, row in enumerate(dataset.rows, 1):
            if number in measured.faults:
                left_out.append(number)
                continue
            whole = next(lengths)
            if whole.total > run.data.cutoff_len:
                try:
                    row = _fitted(row, whole.total, dataset.shape, encoder, run.data_stage, run.data.cutoff_len)
                except TextTooLong:
                    left_out.append(number)
                    continue
                cut += 1
            yield json.dumps(row, ensure_ascii=False, default=str) + "\n"
        if len(left_out) == len(dataset.rows):
            raise UserError(
                f"no example can be cut to {run.data.cutoff_len} tokens, so no copy was written; raise cutoff_len"
            )

    path = folder / entry["file_name"]
    write_whole(path, lines())
    register_dataset(folder, name, entry)
    return Fixed(name, path, cut, left_out, dataset.name not in (run.data.dataset or []))


def _fitted(row: dict[str, Any], total: int, shape: Shape, encoder: Encoder, stage: str, limit: int) -> dict[str, Any]:
    """The row with its longest texts cut to one length: the largest at which the example has at most `limit` tokens.

    Args:
        row: the example.
        total: its number of tokens.
        shape: of the data set.
        encoder: measures in LLaMA-Factory's encoding.
        stage: of the data: sft, rm or kto.
        limit: the cutoff length.

    Raises:
        TextTooLong: too little of the texts would be left.
    """
    starts = {path: token_starts(_at(row, path), encoder.tokenizer) for path in _texts(row, shape, stage)}
    excess = total - limit
    while (keep := _common_length(list(map(len, starts.values())), excess)) >= _LEAST:
        fitted = row
        for path, begins in starts.items():
            if len(begins) > keep:
                fitted = _with(fitted, path, without_middle(_at(row, path), begins, keep))
        # The ellipsis and the new neighbours add tokens; only encoding the whole example shows how many.
        lengths = encoder.lengths(encoder.converted(fitted))
        if lengths is None:
            break
        over = lengths.total - limit
        if over <= 0:
            return fitted
        excess += over
    raise TextTooLong(f"the texts that can be cut have too few tokens to save {excess}")


def _common_length(lengths: list[int], excess: int) -> int:
    """The largest length to which the longest texts can be cut to save `excess` tokens in total.

    It is below zero if the texts have fewer tokens.
    """
    ordered = sorted(lengths, reverse=True)
    keep, sum_of_longest = -1, 0
    for count, length in enumerate(ordered, 1):
        sum_of_longest += length
        keep = (sum_of_longest - excess) // count
        if count == len(ordered) or keep >= ordered[count]:
            break
    return keep


def _texts(row: dict[str, Any], shape: Shape, stage: str) -> list[tuple[Any, ...]]:
    """The paths in a row (keys from the outside in) of the texts that can be cut.

    SFT trains on every answer of a conversation, the other stages on the last answer only; there, earlier answers are
    context.
    """
    columns, tags = shape.columns, shape.tags
    answers = stage != "sft"
    if shape.formatting == "alpaca":
        paths: list[tuple[Any, ...]] = [
            (columns[column],) for column in ("prompt", "query", "system") if column in columns
        ]
        history = row[columns["history"]] if "history" in columns else None
        turns = range(len(history)) if isinstance(history, list) else ()
        paths += [(columns["history"], turn, side) for turn in turns for side in range(1 + answers)]
    else:
        paths = [(columns["system"],)] if "system" in columns else []
        messages = row[columns["messages"]]
        asked = messages if shape.ranking else messages[:-1]  # without pairs, the last message is the response
        context = ["user_tag", "observation_tag", "system_tag", *(["assistant_tag"] if answers else [])]
        roles = {tags[tag] for tag in context if tag in tags}
        paths += [
            (columns["messages"], turn, tags["content_tag"])
            for turn, message in enumerate(asked)
            if message[tags["role_tag"]] in roles
        ]
    return [path for path in paths if isinstance(_at(row, path), str)]


def _at(row: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        row = row[key]
    return row


def _with(row: Any, path: tuple[Any, ...], text: str) -> Any:
    """A copy of `row` with `text` at `path`."""
    if not path:
        return text
    changed = list(row) if isinstance(row, list) else dict(row)
    changed[path[0]] = _with(row[path[0]], path[1:], text)
    return changed
