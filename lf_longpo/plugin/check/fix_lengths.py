"""A copy of a data set in which no question is lost: contexts cut in their middle until examples fit cutoff_len."""

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
from lf_longpo.plugin.shape import Shape
from lf_longpo.text.chunking import token_starts
from lf_longpo.text.fitting import without_middle

# Tokens of a text that stay at least. What stays of fewer may have lost the question.
_LEAST = 32


class Fixed(NamedTuple):
    """A copy that was written.

    Attributes:
        name: of the copy in dataset_info.json.
        path: its file.
        cut: how many examples were cut.
        evaluates: whether it is an evaluation set.
        left_out: rows, from 1, whose responses alone are too long, or that LLaMA-Factory cannot use.
    """

    name: str
    path: Path
    cut: int
    left_out: list[int]
    evaluates: bool


def fix_lengths(checked: Checked) -> list[Fixed]:
    """Writes and registers a copy of each data set next to the others, as `<name>_fit<cutoff_len>`.

    The longest texts of a question give way, from their middle: a question stands at its end or in a text of its own,
    and instructions at its start. Answers that are trained, tool calls and descriptions of tools stay whole. Rows that
    fit are copied as they are. Where no copy can be made, the findings get an error and nothing is written.
    """
    copies = []
    for dataset, measured in checked.datasets:
        try:
            copies.append(_fixed_copy(dataset, measured, checked.run, checked.encoding))
        except UserError as error:
            checked.findings.error(f"dataset {dataset.name}", str(error))
    return copies


def _fixed_copy(dataset: RawDataset, measured: Measured, run: Arguments, encoding: Encoding) -> Fixed:
    """One copy.

    Raises:
        UserError: an entry of the copy's name and another shape is in the way, or no row can stay.
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
                f"no example can be cut to {run.data.cutoff_len} tokens, so no copy was made; raise cutoff_len"
            )

    path = folder / entry["file_name"]
    write_whole(path, lines())
    register_dataset(folder, name, entry)
    return Fixed(name, path, cut, left_out, dataset.name not in (run.data.dataset or []))


def _fitted(row: dict[str, Any], total: int, shape: Shape, encoder: Encoder, stage: str, limit: int) -> dict[str, Any]:
    """The row with its longest texts cut to one length, the largest with which the example has `limit` tokens.

    Args:
        row: the example.
        total: its tokens.
        shape: of the data set.
        encoder: LLaMA-Factory's encoding, which is what is measured.
        stage: of the data: sft, rm or kto.
        limit: the cutoff length.

    Raises:
        TextTooLong: too little would stay of them.
    """
    starts = {place: token_starts(_at(row, place), encoder.tokenizer) for place in _texts(row, shape, stage)}
    excess = total - limit
    while (keep := _common_length(list(map(len, starts.values())), excess)) >= _LEAST:
        fitted = row
        for place, begins in starts.items():
            if len(begins) > keep:
                fitted = _with(fitted, place, without_middle(_at(row, place), begins, keep))
        # The mark and the new neighbours cost tokens of their own; how many only the whole can tell.
        over = encoder.lengths(encoder.converted(fitted)).total - limit
        if over <= 0:
            return fitted
        excess += over
    raise TextTooLong(f"the texts that can be cut have too few tokens to save {excess}")


def _common_length(lengths: list[int], excess: int) -> int:
    """The largest length to which the longest of some texts are cut so that `excess` tokens are saved in all; below
    zero where they have fewer.
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
    """Where in a row the texts stand that can be cut, as keys from the outside in.

    SFT trains on every answer of a conversation, the other stages on the last one only: earlier ones are context there.
    """
    columns, tags = shape.columns, shape.tags
    answers = stage != "sft"
    if shape.formatting == "alpaca":
        places = [(columns[ours],) for ours in ("prompt", "query", "system") if ours in columns]
        history = row[columns["history"]] if "history" in columns else None
        turns = range(len(history)) if isinstance(history, list) else ()
        places += [(columns["history"], turn, side) for turn in turns for side in range(1 + answers)]
    else:
        places = [(columns["system"],)] if "system" in columns else []
        messages = row[columns["messages"]]
        asked = messages if shape.ranking else messages[:-1]  # without pairs, the last message is the response
        context = ["user_tag", "observation_tag", "system_tag", *(["assistant_tag"] if answers else [])]
        roles = {tags[tag] for tag in context if tag in tags}
        places += [
            (columns["messages"], turn, tags["content_tag"])
            for turn, message in enumerate(asked)
            if message[tags["role_tag"]] in roles
        ]
    return [place for place in places if isinstance(_at(row, place), str)]


def _at(row: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        row = row[key]
    return row


def _with(row: Any, place: tuple[Any, ...], text: str) -> Any:
    """A copy of `row` with `text` at `place`."""
    if not place:
        return text
    changed = list(row) if isinstance(row, list) else dict(row)
    changed[place[0]] = _with(row[place[0]], place[1:], text)
    return changed
