"""Lengths of every example in LLaMA-Factory's encoding, before and after its truncation."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.plugin.check.datasets import RawDataset
from lf_longpo.plugin.check.template import Encoding
from lf_longpo.plugin.compat import dataset_processor
from lf_longpo.plugin.recipe import Arguments
from lf_longpo.plugin.row_shape import Shape, drop_reason, type_fault

if TYPE_CHECKING:
    from datasets import Dataset

# A cutoff length above any example's.
_UNCUT = 1 << 30
IGNORE = -100
"""The label of prompt tokens."""
MEASURED = ("sft", "rm", "kto")
"""LLaMA-Factory's names of the stages with prompts and responses; `longpo check` measures their examples."""
DROPPED = "LLaMA-Factory drops it: "
"""Start of the reason for a row that LLaMA-Factory skips without an error."""


class Lengths(NamedTuple):
    """Tokens of one example.

    Attributes:
        prompt: of the prompt, including the template's.
        responses: of the chosen and the rejected response, or of the single response.
    """

    prompt: int
    responses: tuple[int, ...]

    @property
    def total(self) -> int:
        """Tokens of the longest row of the example."""
        return self.prompt + max(self.responses)


class Encoder:
    """LLaMA-Factory's converter and processor of one data set, for single rows.

    Args:
        dataset: the data set.
        run: the recipe.
        encoding: the recipe's tokenizer and template.

    Attributes:
        tokenizer: the recipe's.
    """

    def __init__(self, dataset: RawDataset, run: Arguments, encoding: Encoding) -> None:
        from llamafactory.data.converter import get_dataset_converter

        def processor(cutoff_len: int) -> Any:
            # The labels separate prompt and response; packing comes later.
            data = replace(run.data, cutoff_len=cutoff_len, train_on_prompt=False, packing=False, neat_packing=False)
            return dataset_processor(data, run.data_stage, encoding.template, encoding.tokenizer, encoding.processor)

        self.tokenizer = encoding.tokenizer
        self._convert = get_dataset_converter(dataset.attr.formatting, dataset.attr, run.data)
        self._uncut, self._cut = processor(_UNCUT), processor(run.data.cutoff_len)
        self._sides = ("chosen_", "rejected_") if run.data_stage == "rm" else ("",)

    def converted(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row in LLaMA-Factory's columns.

        Raises:
            Exception: of any kind, if the row does not have the shape of its entry.
        """
        return self._convert(row)

    def lengths(self, converted: dict[str, Any], cut: bool = False) -> Lengths | None:
        """Tokens of a converted row, in full or after truncation (`cut`); None if LLaMA-Factory drops it."""
        encoded = (self._cut if cut else self._uncut).preprocess_dataset(
            {key: [value] for key, value in converted.items()}
        )
        labels = [encoded[f"{side}labels"] for side in self._sides]
        if not labels[0]:
            return None
        prompts = [rows[0].count(IGNORE) for rows in labels]
        return Lengths(prompts[0], tuple(len(rows[0]) - prompt for rows, prompt in zip(labels, prompts, strict=True)))

    def ending(self) -> int:
        """Number of tokens that the template adds after the user's message, before the response."""
        first, second = (self._prompt_ids(text) for text in ("What is it? a", "What is it? 1"))
        same = 0
        while first[-1 - same] == second[-1 - same]:
            same += 1
        return same

    def _prompt_ids(self, text: str) -> list[int]:
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": ""}]
        return self._uncut.template.encode_oneturn(self._uncut.tokenizer, messages)[0]


class _Measure:
    """The function that `datasets` maps over the rows."""

    def __init__(self, encoder: Encoder, shape: Shape, run: Arguments) -> None:
        self._encoder = encoder
        self._shape = shape
        self._cutoff_len = run.data.cutoff_len
        self._stage = run.data_stage

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        measured = {"fault": "", "whole": [0], "kept": [0], "empty": False, "same": False, "turns": 1, "digest": ""}
        measured |= {"prompt": "", "responses": [""]}
        try:
            converted = self._encoder.converted(row)
            whole = kept = self._encoder.lengths(converted)
            if whole is not None and whole.total > self._cutoff_len:
                kept = self._encoder.lengths(converted, cut=True)
        except Exception as error:  # a row of another shape fails at any place in LLaMA-Factory
            return measured | {"fault": type_fault(row, self._shape) or f"{type(error).__name__}: {error}"}
        if whole is None or kept is None:
            return measured | {"fault": DROPPED + drop_reason(row, self._shape, self._stage)}
        responses = [str(message["content"]).strip() for message in converted["_response"]]
        if self._stage == "kto":  # LLaMA-Factory adds an empty text as a pair's other side
            responses = [max(responses, key=len)]
        prompt = repr((converted["_system"], converted["_tools"], converted["_prompt"]))
        return measured | {
            "whole": [whole.prompt, *whole.responses],
            "kept": [kept.prompt, *kept.responses],
            "empty": not all(responses),
            "turns": (len(converted["_prompt"]) + 1) // 2,
            "same": len(responses) == 2 and responses[0] == responses[1],
            "digest": _digest(repr((converted["_system"], converted["_prompt"], responses))),
            "prompt": _digest(prompt),
            "responses": [_digest(response) for response in responses],
        }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Measured(NamedTuple):
    """The measurements of one data set. `whole`, `kept`, `turns` and `texts` have an entry for each example in use.

    Attributes:
        whole: lengths in the data set.
        kept: lengths in training, after truncation.
        turns: number of questions; more than 1 in a conversation.
        ending: tokens that the template adds after the user's message.
        empty: numbers, from 1, of rows with an empty response.
        same: numbers of rows with the same response twice.
        repeated: numbers of rows with the text of an earlier row.
        faults: numbers of rows that LLaMA-Factory drops or fails on, with the reason.
        texts: digests of the prompt and of each response.
    """

    whole: list[Lengths]
    kept: list[Lengths]
    turns: list[int]
    ending: int
    empty: list[int]
    same: list[int]
    repeated: list[int]
    faults: dict[int, str]
    texts: list[tuple[str, ...]]


def measure(dataset: RawDataset, run: Arguments, encoding: Encoding) -> Measured:
    """Encodes a whole data set, on preprocessing_num_workers processes (of the recipe)."""
    encoder = Encoder(dataset, run, encoding)
    rows = _mapped(
        dataset.rows,
        _Measure(encoder, dataset.shape, run),
        run.data.preprocessing_num_workers,
    )
    numbered = list(enumerate(zip(*(rows[name] for name in ("fault", "whole", "kept", "digest")), strict=True), 1))
    taken = [(number, *values) for number, (fault, *values) in numbered if not fault]
    seen: dict[str, int] = {}
    for number, *_, digest in taken:
        seen.setdefault(digest, number)
    return Measured(
        whole=[_lengths(whole) for _, whole, _, _ in taken],
        kept=[_lengths(kept) for _, _, kept, _ in taken],
        turns=[turns for turns, fault in zip(rows["turns"], rows["fault"], strict=True) if not fault],
        ending=encoder.ending(),
        empty=[number for number, empty in enumerate(rows["empty"], 1) if empty],
        same=[number for number, same in enumerate(rows["same"], 1) if same],
        repeated=[number for number, *_, digest in taken if seen[digest] != number],
        faults={number: fault for number, (fault, *_) in numbered if fault},
        texts=[
            (prompt, *responses)
            for prompt, responses, fault in zip(rows["prompt"], rows["responses"], rows["fault"], strict=True)
            if not fault
        ],
    )


def _mapped(rows: "Dataset", function: _Measure, workers: int | None) -> "Dataset":
    from datasets.utils import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    try:
        # No cache: its key depends on a hash of the tokenizer, which is not always stable.
        return rows.map(
            function,
            remove_columns=rows.column_names,
            num_proc=workers if workers and len(rows) >= 1000 else None,
            load_from_cache_file=False,
        )
    finally:
        enable_progress_bars()


def _lengths(counts: Sequence[int]) -> Lengths:
    return Lengths(counts[0], tuple(counts[1:]))
