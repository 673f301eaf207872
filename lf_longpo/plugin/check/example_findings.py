"""Findings on the examples of a data set: lengths, what truncation removes, and faults of the responses."""

from collections.abc import Sequence
from typing import Any

from lf_longpo.plugin.check.examples import DROPPED, Lengths, Measured
from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.recipe import Arguments

_FIX_LENGTH = "raise cutoff_len, or run longpo check --fix-lengths"


def report_examples(name: str, measured: Measured, run: Arguments, findings: Findings) -> None:
    """Reports the lengths of one data set, what truncation removes, and faults of its responses."""
    where, number = f"dataset {name}", len(measured.whole)
    if measured.faults:
        row, reason = next(iter(measured.faults.items()))
        dropped = all(fault.startswith(DROPPED) for fault in measured.faults.values())
        report = findings.warn if dropped else findings.error
        report(where, f"{_rows(measured.faults)} cannot be used; row {row}: {reason}")
    if not number:
        findings.error(where, "has no example that LLaMA-Factory can use; fix its rows")
        return
    findings.facts.setdefault("datasets", {})[name] = facts = _length_facts(measured, run)
    _report_truncation(where, measured, facts, run, findings)
    for rows, fault in (
        (measured.empty, "an empty response"),
        (measured.same, "the same response as chosen and rejected"),
    ):
        if rows:
            verb = "has" if len(rows) == 1 else "have"
            findings.error(where, f"{_rows(rows)} {verb} {fault}; remove {'it' if len(rows) == 1 else 'them'}")
    if measured.repeated:
        verb = "repeats" if len(measured.repeated) == 1 else "repeat"
        findings.warn(where, f"{_rows(measured.repeated)} {verb} an earlier row and count twice in training")
    if run.data_stage == "rm":
        _report_bias(where, measured.whole, facts, findings)


def _length_facts(measured: Measured, run: Arguments) -> dict[str, Any]:
    totals, number = sorted(lengths.total for lengths in measured.whole), len(measured.whole)
    shares = {f"{share}%": totals[min(number - 1, number * share // 100)] for share in (0, 50, 90, 99)}
    single, _ = _by_turns(measured, run)
    return {
        "examples": number,
        "tokens": shares | {"max": totals[-1]},
        "longer than cutoff_len": sum(total > run.data.cutoff_len for total in totals),
        # The end of the prompt is cut: first the template's ending, then the question.
        "lose their question": sum(whole.prompt - kept.prompt > measured.ending for whole, kept in single),
        "lose response tokens": sum(whole.responses != kept.responses for whole, kept in single),
    }


def _by_turns(
    measured: Measured, run: Arguments
) -> tuple[list[tuple[Lengths, Lengths]], list[tuple[Lengths, Lengths]]]:
    """Lengths before and after truncation of examples with one question, and of conversations in SFT.

    LLaMA-Factory drops later turns of a long conversation, which is another loss than that of a question.
    """
    single: list[tuple[Lengths, Lengths]] = []
    conversations: list[tuple[Lengths, Lengths]] = []
    for whole, kept, turns in zip(measured.whole, measured.kept, measured.turns, strict=True):
        (conversations if run.data_stage == "sft" and turns > 1 else single).append((whole, kept))
    return single, conversations


def _report_truncation(
    where: str, measured: Measured, facts: dict[str, Any], run: Arguments, findings: Findings
) -> None:
    longer, number = facts["longer than cutoff_len"], facts["examples"]
    single, conversations = _by_turns(measured, run)
    if shortened := sum(whole != kept for whole, kept in conversations):
        findings.warn(where, f"{shortened} of {number} examples lose their later turns; raise cutoff_len")
    cut = sum(whole != kept for whole, kept in single)
    if not cut:
        return
    if run.data.packing:
        findings.warn(
            where, f"{longer} of {number} examples are longer than cutoff_len and packing drops them; raise cutoff_len"
        )
        return
    if lost := facts["lose their question"]:
        findings.error(
            where,
            f"{lost} of {number} examples lose their question, since LLaMA-Factory cuts a prompt at its end; "
            f"{_FIX_LENGTH}",
        )
    if lost := facts["lose response tokens"]:
        findings.warn(where, f"{lost} of {number} examples lose the end of a response; {_FIX_LENGTH}")
    if not facts["lose their question"] and not facts["lose response tokens"]:
        findings.error(where, f"{cut} of {number} examples lose the template's last tokens; {_FIX_LENGTH}")


def _report_bias(where: str, lengths: Sequence[Lengths], facts: dict[str, Any], findings: Findings) -> None:
    """DPO learns a difference in length before one in content (Park et al., arXiv 2403.19159)."""
    number = len(lengths)
    chosen, rejected = (sum(example.responses[side] for example in lengths) / number for side in (0, 1))
    longer = sum(example.responses[0] > example.responses[1] for example in lengths) / number
    shorter = sum(example.responses[0] < example.responses[1] for example in lengths) / number
    facts["response tokens"] = {
        "chosen": round(chosen, 1),
        "rejected": round(rejected, 1),
        "chosen longer": round(longer, 3),
    }
    if number >= 20 and max(longer, shorter) > 0.75 and max(chosen, rejected) > 1.25 * min(chosen, rejected):
        side = "longer" if longer > shorter else "shorter"
        findings.warn(
            where,
            f"chosen responses have {chosen:.0f} tokens on average, rejected ones {rejected:.0f}, and are {side} in "
            f"{max(longer, shorter):.0%} of the pairs: the model learns length first; balance the pairs, or set "
            "ld_alpha below 1",
        )


def _rows(rows: Sequence[int] | dict[int, str]) -> str:
    numbers = list(rows)
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"row {shown}" if len(numbers) == 1 else f"{len(numbers)} rows ({shown})"
