"""The parser of all commands, and the arguments that several commands share."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """Reports an error in one line, with the nearest command or option, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        choice = re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if choice:
            name, value, choices = choice[1], choice[2], re.findall(r"[\w-]+", choice[3])
            what = f"unknown command {value}" if name == "COMMAND" else f"{name}: unknown value {value}"
            near = difflib.get_close_matches(value, choices, 1)
            self.exit(2, f"error: {what}; {f'did you mean {near[0]}?' if near else 'use ' + ', '.join(choices)}\n")
        self.exit(2, f"error: {message}; run `{self.prog} --help`\n")

    def refuse(self, words: Sequence[str], takes_settings: bool) -> NoReturn:
        """Reports an unknown option: what to write instead, if it is a setting or nearly an option.

        Args:
            words: all words that were not recognised.
            takes_settings: whether the command takes key=value.
        """
        from lf_longpo.cli.settings_files import find_setting

        at = next((i for i, word in enumerate(words) if word.startswith("-")), 0)
        option, equals, value = words[at].partition("=")
        if not equals:
            value = next((word for word in words[at + 1 : at + 2] if not word.startswith("-")), "VALUE")
        name = option.lstrip("-").replace("-", "_")
        setting = find_setting(self.prog, name) if takes_settings else None
        near = difflib.get_close_matches(option, re.findall(r"--[\w-]+", self.format_help()), 1, cutoff=0.7)
        if near and not setting:
            fix = f"did you mean {near[0]}?"
        elif takes_settings:
            fix = f"settings have the form key=value: write {setting or name}={value}"
        else:
            fix = f"run `{self.prog} --help`"
        self.exit(2, f"error: unknown {'option' if option.startswith('-') else 'argument'} {option}; {fix}\n")


def add_command(
    subparsers: Subparsers, name: str, run: Callable[[argparse.Namespace], int], help: str, description: str
) -> Parser:
    """Adds the parser of a command; `main` calls `run` with the options.

    Args:
        help: a few words for the list of commands.
        description: sentences for the command's own help.
    """
    parser = subparsers.add_parser(name, help=help, description=description)
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_run(parser: Parser) -> None:
    """Marks a command that keeps what is finished: after an interruption, the same command resumes."""
    parser.set_defaults(is_run=True)


def print_loading() -> None:
    """Says that a run begins, before its imports, which take seconds."""
    print("loading ...", file=sys.stderr, flush=True)


def add_settings(parser: Parser) -> None:
    """Adds the YAML file of a command and the overrides of its settings."""
    parser.add_argument("config", help="YAML file of settings, or the name of a shipped one (see longpo recipes)")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="override a setting, such as seed=7; for a setting in a section: SECTION.KEY=value",
    )


def add_estimate(parser: Parser) -> None:
    """Adds --estimate and the speeds that it takes."""
    parser.add_argument("--estimate", action="store_true", help="estimate calls, tokens, cost and time; make no calls")
    parser.add_argument(
        "--tokens-per-second",
        type=number_above_0,
        action=_ForEstimate,
        metavar="N",
        help="for --estimate: new tokens a second of the server, all calls together (default: measured in a run with "
        "the same models, if there is one)",
    )
    parser.add_argument(
        "--prompt-tokens-per-second",
        type=number_above_0,
        action=_ForEstimate,
        metavar="N",
        help="for --estimate, next to --tokens-per-second: prompt tokens a second (default: their time is included)",
    )


class _ForEstimate(argparse.Action):
    """A number that only an estimate needs: a command with it makes no calls."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, values)
        namespace.estimate = True


def number_above_0(text: str) -> float:
    """A type of arguments, for argparse."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


number_above_0.__name__ = "number above 0"  # argparse names it in its error


def add_recipe(parser: Parser) -> None:
    """Adds a LLaMA-Factory recipe and overrides of its settings."""
    parser.add_argument("recipe", help="YAML recipe of LLaMA-Factory, or the name of a shipped one: longpo recipes")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="override a setting, such as learning_rate=5e-6"
    )


def parallel_processes(text: str) -> int:
    """The value of --sequence-parallel; 0 for auto."""
    if text == "auto":
        return 0
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is neither auto nor a number of processes, such as 2")


def add_dataset_dir(parser: Parser) -> None:
    """Adds LLaMA-Factory's data folder."""
    parser.add_argument(
        "--dataset-dir",
        type=Path,
        default=Path("dataset_info"),
        metavar="DIR",
        help="LLaMA-Factory's data folder (default: %(default)s)",
    )


def add_pairs(parser: Parser) -> None:
    """Adds the name of a set of pairs and the data folder in which it may be registered."""
    parser.add_argument("name", help="output_dir of a generation, a .jsonl file of pairs, or a registered data set")
    add_dataset_dir(parser)


def whole_number_above_0(text: str) -> int:
    """The type of an option that counts something."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text}")
    return int(text)
