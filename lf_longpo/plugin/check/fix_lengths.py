"""A copy of a data set in which nothing is lost: contexts cut in their middle until every example fits cutoff_len."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lf_longpo.errors import TextTooLong
from lf_longpo.journal import write_whole
from lf_longpo.plugin.check.datasets import RawDataset
from lf_longpo.plugin.check.examples import Encoder, Measured
from lf_longpo.plugin.check.template import Encoding
from lf_longpo.plugin.recipe import Arguments
from lf_longpo.plugin.registry import check_registration, load_dataset_info, register_dataset
from lf_longpo.text.fitting import cut_middle


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


def fix_lengths(dataset: RawDataset, measured: Measured, run: Arguments, encoding: Encoding) -> Fixed:
    """Writes and registers the copy beside the others, as `<name>_fit<cutoff_len>`.

    The longest text of a prompt gives way, from its middle: a question stands at its end or in a text of its own, and
    instructions at its start. Rows that fit are copied as they are.

    Args:
        dataset: as it was loaded.
        measured: its lengths.
        run: the recipe, with the cutoff length.
        encoding: its tokenizer and template.

    Raises:
        UserError: an entry of the copy's name and another shape is in the way.
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
                    row = _fitted(row, max(whole.responses), dataset, encoder, run, encoding)
                except TextTooLong:
                    left_out.append(number)
                    continue
                cut += 1
            yield json.dumps(row, ensure_ascii=False, default=str) + "\n"

    path = folder / entry["file_name"]
    write_whole(path, lines())
    register_dataset(folder, name, entry)
    return Fixed(name, path, cut, left_out, dataset.name not in (run.data.dataset or []))


def _fitted(
    row: dict[str, Any], response: int, dataset: RawDataset, encoder: Encoder, run: Arguments, encoding: Encoding
) -> dict[str, Any]:
    """The row with its longest prompt text cut so that prompt and response fit.

    Raises:
        TextTooLong: the rest is already too long.
    """
    texts = _prompt_texts(row, dataset)
    longest = max(texts, key=lambda place: len(_at(row, place)))

    def prompt_tokens(text: str) -> int:
        return encoder.lengths(encoder.converted(_with(row, longest, text))).prompt

    # No room is left unused but none is missing: LLaMA-Factory's own encoding is what is measured.
    text = cut_middle(_at(row, longest), encoding.tokenizer, prompt_tokens, run.data.cutoff_len - response)
    return _with(row, longest, text)


def _prompt_texts(row: dict[str, Any], dataset: RawDataset) -> list[tuple[Any, ...]]:
    """Where in a row the texts of its prompt stand, as keys from the outside in."""
    attr = dataset.attr
    if attr.formatting == "alpaca":
        return [(column,) for column in (attr.prompt, attr.query) if column and isinstance(row[column], str)]
    messages = row[attr.messages]
    last = len(messages) if attr.ranking else len(messages) - 1  # without pairs, the last message is the response
    return [(attr.messages, turn, attr.content_tag) for turn in range(last)]


def _at(row: Any, place: tuple[Any, ...]) -> str:
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
