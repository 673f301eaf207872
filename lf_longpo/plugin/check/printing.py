"""The report of `longpo check`: tables for the terminal, or JSON."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lf_longpo.plugin.check.findings import Findings
from lf_longpo.plugin.check.fix_lengths import Fixed
from lf_longpo.plugin.check.memory_estimate import GIB


def as_json(recipe: str, findings: Findings, copies: Sequence[Fixed]) -> str:
    """The report as one JSON object: recipe, errors, warnings (each with where and message), facts and copies."""
    report: dict[str, Any] = {"recipe": recipe} | {
        kind: [finding._asdict() for finding in found]
        for kind, found in (("errors", findings.errors), ("warnings", findings.warnings))
    }
    report |= {"facts": findings.facts, "copies": [copy._asdict() | {"path": str(copy.path)} for copy in copies]}
    return json.dumps(report, ensure_ascii=False, indent=2)


def print_report(console: Console, recipe: str, findings: Findings) -> None:
    """Prints the report in tables; errors come last, so that they are next to the prompt."""
    facts = findings.facts
    for name, dataset_facts in facts.get("datasets", {}).items():
        console.print(_dataset_table(name, dataset_facts))
    if memory := facts.get("memory"):
        console.print(_memory_table(memory))
    if trainer := facts.get("longpo train"):
        how = "accelerated" if trainer["accelerated"] else f"plain LLaMA-Factory, since {trainer['reason']}"
        console.print(f"longpo train: {how}", markup=False)
    for name in ("rows of one prompt", "steps", "resumes from"):
        if fact := facts.get(name):
            line = ", ".join(f"{key}: {value:,}" for key, value in fact.items()) if isinstance(fact, dict) else fact
            console.print(f"{name}: {line}", markup=False)
    for kind, style, found in (("warning", "yellow", findings.warnings), ("error", "red", findings.errors)):
        for finding in found:
            console.print(f"[{style}]{kind}[/]  [bold]{escape(finding.where)}[/]: {escape(finding.message)}")
    console.print(f"{escape(recipe)}: {len(findings.errors)} errors, {len(findings.warnings)} warnings")


def print_copies(console: Console, copies: Sequence[Fixed]) -> None:
    """Prints which copies `--fix-lengths` wrote, and how to train on them."""
    for copy in copies:
        console.print(f"{copy.path}: {copy.cut} examples cut in the middle of their texts", markup=False)
        if copy.left_out:
            shown = ", ".join(map(str, copy.left_out[:5])) + (", ..." if len(copy.left_out) > 5 else "")
            console.print(
                f"{len(copy.left_out)} rows skipped ({shown}): too long without their contexts, or not usable",
                markup=False,
            )
    for setting, evaluates in (("dataset", False), ("eval_dataset", True)):
        if names := [copy.name for copy in copies if copy.evaluates == evaluates]:
            console.print(f"Train with: {setting}={','.join(names)}", markup=False)


def _dataset_table(name: str, facts: dict[str, Any]) -> Table:
    table = Table(title=f"data set {escape(name)}", title_justify="left", show_header=False)
    for key, value in facts.items():
        if isinstance(value, dict):
            value = "  ".join(f"{part} {number:,}" for part, number in value.items())
        else:
            value = f"{value:,}"
        table.add_row(key, value)
    return table


def _memory_table(memory: dict[str, Any]) -> Table:
    title = f"memory of one GPU by part, for rows of up to {memory['longest row']:,} tokens; GiB"
    table = Table(title=title, title_justify="left")
    ways = memory["ways"].values()
    for column in ("", *memory["ways"]):
        table.add_column(column, justify="right" if column else "left")
    for part in dict.fromkeys(part for way in ways for part in way["parts"]):
        table.add_row(part, *(_gib(way["parts"].get(part, 0)) for way in ways))
    table.add_section()
    table.add_row("at the peak", *(_gib(way["total"]) for way in ways))
    gpus = f"{memory['gpus']} of {_gib(memory['gpu memory'])}, {escape(memory['told'])}"
    if memory["sequence parallel"] > 1:
        gpus += f"; longpo train: {memory['sequence parallel']} share each row"
    table.add_row(f"GPUs: {gpus}", *("fits" if way["fits"] else "does not fit" for way in ways))
    return table


def _gib(size: float) -> str:
    return f"{size / GIB:,.2f}"
