"""`longpo synthesize`: long-context questions for `longpo generate`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.cli.arguments import Parser, Subparsers, add_command, add_estimate, add_run, add_settings, print_loading

if TYPE_CHECKING:
    from lf_longpo.config import SelfInstructConfig
    from lf_longpo.synthesis.data_card import Card
    from lf_longpo.synthesis.mix import Choice


def add(subparsers: Subparsers) -> None:
    parser: Parser = subparsers.add_parser(
        "synthesize",
        help="write long-context questions",
        description="Writes questions for `longpo generate`, and a data card next to them.",
    )
    kinds = parser.add_subparsers(required=True, metavar="COMMAND", dest="kind")
    multihop = add_command(
        kinds,
        "multihop",
        run,
        help="long contexts for published multi-hop questions",
        description="Takes questions from MuSiQue, HotpotQA or 2WikiMultiHopQA. Each context has the supporting "
        "documents and unrelated ones, shuffled and numbered, up to the length you set.",
    )
    needle = add_command(
        kinds,
        "needle",
        run,
        help="facts hidden in long documents, without a model",
        description="Hides facts at chosen depths in generated documents of any length. A question needs one fact "
        "or more.",
    )
    self_instruct = add_command(
        kinds,
        "self-instruct",
        run_self_instruct,
        help="a model writes questions about your documents",
        description="A model writes questions of several kinds about documents (.txt, .md, .html, .pdf, tables) and "
        "answers them. Duplicates and questions without an answer are removed, and the rest is registered as an SFT "
        "data set.",
    )
    mix = add_command(
        kinds,
        "mix",
        run,
        help="merge, filter and split files of questions",
        description="Merges files of questions, removes questions by length and language and those with repeated "
        "contexts, and holds out questions that share no document with the others.",
    )
    for kind in (multihop, needle, self_instruct, mix):
        add_settings(kind)
    add_run(self_instruct)
    add_estimate(self_instruct)


def run(options: argparse.Namespace) -> int:
    import lf_longpo.config as configs
    from lf_longpo.cli.settings_files import load_settings

    settings: dict[str, type[configs.Config]] = {
        "multihop": configs.MultiHopConfig,
        "needle": configs.NeedleConfig,
        "mix": configs.MixConfig,
    }
    config = load_settings(settings[options.kind], options.config, options.overrides)
    from lf_longpo.synthesis import build

    if isinstance(config, configs.MixConfig):
        choice, cards = build.mix(config)
        print_removed(choice)
        print_questions((config.output, config.held_out), cards)
    elif isinstance(config, configs.MultiHopConfig):
        print_questions((config.output, config.held_out), build.make_multihop(config))
    elif isinstance(config, configs.NeedleConfig):
        print_questions((config.output,), build.make_needles(config))
    return 0


def run_self_instruct(options: argparse.Namespace) -> int:
    from lf_longpo.cli.settings_files import load_settings
    from lf_longpo.config import SelfInstructConfig

    config = load_settings(SelfInstructConfig, options.config, options.overrides)
    print_loading()
    from lf_longpo.cli.run_output import print_estimate, speed_for
    from lf_longpo.synthesis.self_instruct_run import estimate, self_instruct

    if options.estimate:
        print_estimate(f"self-instruct: {config.dataset_name}", estimate(config), speed_for(options, config))
        return 0
    summary, exit_code = self_instruct(config)
    print_self_instruct(summary, config, options.command)
    return exit_code


def print_questions(outputs: Sequence[Path | None], cards: Sequence["Card"]) -> None:
    """Prints a line for each file of questions, and the remarks of its data card."""
    from lf_longpo.cli.run_output import stdout_console

    for output, card in zip(outputs, cards, strict=False):
        lengths = f"{min(card.tokens):,} to {max(card.tokens):,} tokens"
        for line in (f"{len(card.tokens)} questions of {lengths} -> {output}", *card.remarks):
            stdout_console().print(line, markup=False)


def print_removed(choice: "Choice") -> None:
    """Prints how many questions `longpo synthesize mix` has removed, by reason."""
    from lf_longpo.cli.run_output import stdout_console

    for reason, number in choice.dropped.items():
        stdout_console().print(f"{number} removed: {reason}", markup=False)


def print_self_instruct(summary: dict[str, Any], config: "SelfInstructConfig", command: str) -> None:
    """Prints the end of `longpo synthesize self-instruct`.

    Args:
        summary: as in summary.json.
        command: as the user has typed it.
    """
    from rich.markup import escape

    from lf_longpo.cli import run_output as output
    from lf_longpo.report.advice import thought_advice
    from lf_longpo.synthesis.self_instruct import UNFINISHED_THOUGHT

    console = output.stdout_console()
    table = output.result_table(f"self-instruct: {config.dataset_name}")
    removed = _by_reason(summary["left_out"])
    table.add_row("documents", f"{summary['documents']}, {summary['failed']} failed; skipped: {removed}")
    removed = _by_reason(summary["questions_left_out"])
    table.add_row("questions", f"{summary['questions']} with answers; removed: {removed}")
    output.add_calls(table, summary)
    table.add_row("run", escape(str(config.output_dir)))
    output.add_failures(table, summary, config.output_dir)
    if summary["questions"]:
        table.add_row("data set", escape(str(config.dataset_dir / f"{config.dataset_name}.jsonl")))
    console.print(table)
    output.print_unfinished(console, config.max_cost, summary, summary["documents"], command, "documents")
    for advice in thought_advice(summary["questions_left_out"].get(UNFINISHED_THOUGHT, 0)):
        console.print(advice, markup=False)
    if not summary["questions"]:
        console.print("No questions: nothing was registered.")


def _by_reason(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in counts.items()) or "none"
