"""Every example as LLaMA-Factory encodes it: how long it is, and what of it its truncation leaves."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.plugin.check.datasets import RawDataset
from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.check.template import Encoding
from lf_longpo.plugin.recipe import Arguments
from lf_longpo.plugin.shape import Shape, drop_reason, type_fault

if TYPE_CHECKING:
    from datasets import Dataset

# Longer than any example: nothing is cut.
_UNCUT = 1 << 30
IGNORE = -100
# Stages whose examples are prompts with responses, by LLaMA-Factory's names.
MEASURED = ("sft", "rm", "kto")
_DROPPED = "LLaMA-Factory drops it: "


class Lengths(NamedTuple):
    """Tokens of one example.

    Attributes:
        prompt: of the prompt, with the template's own.
        responses: of the chosen and the rejected response, or of the one response.
    """

    prompt: int
    responses: tuple[int, ...]

    @property
    def total(self) -> int:
        """Tokens of the longest row that the example becomes."""
        return self.prompt + max(self.responses)


class Encoder:
    """LLaMA-Factory's converter and processor of one data set, one row at a time.

    Args:
        dataset: whose rows will come.
        run: the recipe.
        encoding: its tokenizer and template.

    Attributes:
        tokenizer: the recipe's.
    """

    def __init__(self, dataset: RawDataset, run: Arguments, encoding: Encoding) -> None:
        from llamafactory.data.converter import get_dataset_converter
        from llamafactory.data.loader import _get_dataset_processor

        def processor(cutoff_len: int) -> Any:
            # Lengths of prompt and response are told apart by the labels; packing comes after.
            data = replace(run.data, cutoff_len=cutoff_len, train_on_prompt=False, packing=False, neat_packing=False)
            return _get_dataset_processor(
                data, run.data_stage, encoding.template, encoding.tokenizer, encoding.processor
            )

        self.tokenizer = encoding.tokenizer
        self._convert = get_dataset_converter(dataset.attr.formatting, dataset.attr, run.data)
        self._uncut, self._cut = processor(_UNCUT), processor(run.data.cutoff_len)
        self._sides = ("chosen_", "rejected_") if run.data_stage == "rm" else ("",)

    def converted(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row in LLaMA-Factory's own columns.

        Raises:
            Exception: of whatever kind, where the row has not the shape that its entry tells.
        """
        return self._convert(row)

    def lengths(self, converted: dict[str, Any], cut: bool = False) -> Lengths | None:
        """Tokens of a converted row, whole or as the cutoff length leaves it; None where LLaMA-Factory drops it."""
        encoded = (self._cut if cut else self._uncut).preprocess_dataset(
            {key: [value] for key, value in converted.items()}
        )
        labels = [encoded[f"{side}labels"] for side in self._sides]
        if not labels[0]:
            return None
        prompts = [rows[0].count(IGNORE) for rows in labels]
        return Lengths(prompts[0], tuple(len(rows[0]) - prompt for rows, prompt in zip(labels, prompts, strict=True)))

    def ending(self) -> int:
        """Tokens that the template puts behind the user's message, before the response."""
        first, second = (self._prompt_ids(text) for text in ("What is it? a", "What is it? 1"))
        same = 0
        while first[-1 - same] == second[-1 - same]:
            same += 1
        return same

    def _prompt_ids(self, text: str) -> list[int]:
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": ""}]
        return self._uncut.template.encode_oneturn(self._uncut.tokenizer, messages)[0]


class _Measure:
    """What `datasets` maps over the rows."""

    def __init__(self, encoder: Encoder, shape: Shape, run: Arguments) -> None:
        self._encoder = encoder
        self._shape = shape
        self._cutoff_len = run.data.cutoff_len
        self._stage = run.data_stage

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        measured = {"fault": "", "whole": [0], "kept": [0], "empty": False, "same": False, "turns": 1, "digest": ""}
        try:
            converted = self._encoder.converted(row)
            whole = self._encoder.lengths(converted)
        except Exception as error:  # a row of another shape fails anywhere in LLaMA-Factory's code
            return measured | {"fault": type_fault(row, self._shape) or f"{type(error).__name__}: {error}"}
        if whole is None:
            return measured | {"fault": _DROPPED + drop_reason(row, self._shape, self._stage)}
        kept = whole if whole.total <= self._cutoff_len else self._encoder.lengths(converted, cut=True)
        responses = [str(message["content"]).strip() for message in converted["_response"]]
        if self._stage == "kto":  # LLaMA-Factory puts an empty text where a pair's other side would stand
            responses = [max(responses, key=len)]
        texts = repr((converted["_system"], converted["_prompt"], responses)).encode()
        return measured | {
            "whole": [whole.prompt, *whole.responses],
            "kept": [kept.prompt, *kept.responses],
            "empty": not all(responses),
            "turns": (len(converted["_prompt"]) + 1) // 2,
            "same": len(responses) == 2 and responses[0] == responses[1],
            "digest": hashlib.sha256(texts).hexdigest(),
        }


class Measured(NamedTuple):
    """One data set, measured; a list has one entry an example that LLaMA-Factory takes.

    Attributes:
        whole: lengths as the data set has it.
        kept: lengths as training will have it.
        turns: questions of each, more than one in a conversation.
        ending: tokens of the template behind the user's message.
        empty: row numbers, from 1, with an empty response.
        same: with the same response twice.
        repeated: that say the same as an earlier one.
        faults: row numbers that LLaMA-Factory drops or fails at, with the reason.
    """

    whole: list[Lengths]
    kept: list[Lengths]
    turns: list[int]
    ending: int
    empty: list[int]
    same: list[int]
    repeated: list[int]
    faults: dict[int, str]


def measure(dataset: RawDataset, run: Arguments, encoding: Encoding) -> Measured:
    """Encodes a whole data set; on as many processes as the recipe's preprocessing_num_workers."""
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
    )


def _mapped(rows: "Dataset", function: _Measure, workers: int | None) -> "Dataset":
    from datasets.utils import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    try:
        # Not from a cache: what is measured must not depend on how well a tokenizer can be hashed.
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


def report(name: str, measured: Measured, run: Arguments, findings: Findings) -> None:
    """Reports lengths, what is cut, and faults of the responses of one data set."""
    where, number = f"dataset {name}", len(measured.whole)
    if measured.faults:
        row, reason = next(iter(measured.faults.items()))
        dropped = all(fault.startswith(_DROPPED) for fault in measured.faults.values())
        told = findings.warn if dropped else findings.error
        told(where, f"{_rows(measured.faults)} cannot be used; row {row}: {reason}")
    if not number:
        findings.error(where, "has no example that LLaMA-Factory takes")
        return
    totals = sorted(lengths.total for lengths in measured.whole)
    facts: dict[str, Any] = {
        "examples": number,
        "tokens": {f"{share}%": totals[min(number - 1, number * share // 100)] for share in (0, 50, 90, 99)}
        | {"max": totals[-1]},
        "longer than cutoff_len": sum(total > run.data.cutoff_len for total in totals),
    }
    # Of a longer conversation LLaMA-Factory drops later turns; that is told apart from a question that is lost.
    talks = run.data_stage == "sft"
    pairs, conversations = [], []
    for whole, kept, turns in zip(measured.whole, measured.kept, measured.turns, strict=True):
        (conversations if talks and turns > 1 else pairs).append((whole, kept))
    if shortened := sum(whole != kept for whole, kept in conversations):
        findings.warn(where, f"{shortened} of {number} examples lose their later turns: they exceed cutoff_len")
    longer_pairs = sum(whole != kept for whole, kept in pairs)
    # The prompt's end is what is cut; the template's own ending goes first, then the question.
    facts["lose their question"] = sum(whole.prompt - kept.prompt > measured.ending for whole, kept in pairs)
    facts["lose response tokens"] = sum(whole.responses != kept.responses for whole, kept in pairs)
    findings.facts.setdefault("datasets", {})[name] = facts
    _report_cut(where, facts, longer_pairs, run, findings)
    for rows, what in (
        (measured.empty, "an empty response"),
        (measured.same, "the same response as chosen and rejected; such a pair teaches nothing"),
    ):
        if rows:
            findings.error(where, f"{_rows(rows)} has {what}" if len(rows) == 1 else f"{_rows(rows)} have {what}")
    if measured.repeated:
        findings.warn(where, f"{_rows(measured.repeated)} say the same as earlier ones; they count double")
    if run.data_stage == "rm":
        _report_bias(where, measured.whole, facts, findings)


def _report_cut(where: str, facts: dict[str, Any], cut: int, run: Arguments, findings: Findings) -> None:
    longer, number = facts["longer than cutoff_len"], facts["examples"]
    if not cut:
        return
    if run.data.packing:
        findings.warn(where, f"{longer} of {number} examples are longer than cutoff_len; packing drops them")
        return
    mend = "raise cutoff_len, or run longpo check --fix-lengths"
    if lost := facts["lose their question"]:
        findings.error(
            where, f"{lost} of {number} examples lose their question: LLaMA-Factory cuts a prompt at its end; {mend}"
        )
    if lost := facts["lose response tokens"]:
        findings.warn(where, f"{lost} of {number} examples lose the end of a response; {mend}")
    if not facts["lose their question"] and not facts["lose response tokens"]:
        findings.error(where, f"{cut} of {number} examples lose the template's last tokens; {mend}")


def _report_bias(where: str, lengths: Sequence[Lengths], facts: dict[str, Any], findings: Findings) -> None:
    """DPO picks up a difference in length before one in content (Park et al., arXiv 2403.19159)."""
    number = len(lengths)
    chosen, rejected = (sum(example.responses[side] for example in lengths) / number for side in (0, 1))
    longer = sum(example.responses[0] > example.responses[1] for example in lengths) / number
    shorter = sum(example.responses[0] < example.responses[1] for example in lengths) / number
    told = {"chosen": round(chosen, 1), "rejected": round(rejected, 1), "chosen longer": round(longer, 3)}
    facts["response tokens"] = told
    if number >= 20 and max(longer, shorter) > 0.75 and max(chosen, rejected) > 1.25 * min(chosen, rejected):
        side = "longer" if longer > shorter else "shorter"
        findings.warn(
            where,
            f"chosen responses have {chosen:.0f} tokens on average, rejected ones {rejected:.0f}, and are {side} in "
            f"{max(longer, shorter):.0%} of the pairs: the model will learn length first; balance the pairs, or set "
            "ld_alpha below 1",
        )


def _rows(rows: Sequence[int] | dict[int, str]) -> str:
    numbers = list(rows)
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"row {shown}" if len(numbers) == 1 else f"{len(numbers)} rows ({shown})"
