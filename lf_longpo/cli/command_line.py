"""The `longpo` command: the list of its commands, and what happens around each of them."""

import argparse
import os
import select
import shlex
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from lf_longpo import __version__
from lf_longpo.cli import (
    chat_command,
    check_command,
    config_command,
    evaluate_command,
    export_command,
    generate_command,
    init_command,
    recipes_command,
    register_command,
    report_command,
    schema_command,
    score_command,
    status_command,
    synthesize_command,
    train_command,
    view_command,
)
from lf_longpo.cli.arguments import Parser
from lf_longpo.errors import CLOSED_PIPE, INTERRUPTED, UserError

COMMANDS = (
    recipes_command,
    init_command,
    generate_command,
    score_command,
    evaluate_command,
    status_command,
    chat_command,
    report_command,
    view_command,
    export_command,
    synthesize_command,
    check_command,
    train_command,
    register_command,
    config_command,
    schema_command,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit code: 0 for success, 1 if too many questions failed, 2 for bad input, 130 if interrupted,
        141 if stdout was closed.
    """
    options = _parse(arguments)
    # Tokenizers warn about forks, and progress bars of libraries would hide the output of the command.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # terminals and file names may not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    resume = f"run the same command again to resume: {options.command}" if options.is_run else ""
    try:
        exit_code: int = options.run(options)
        sys.stdout.flush()
    except UserError as error:
        notes = _notes(error)
        kept = [*notes, f"To resume after the fix: {options.command}"] if notes and options.is_run else notes
        print(*kept, f"error: {error}", sep="\n", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder without permission
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more at its end
            return CLOSED_PIPE
        fix = f"fix this and {resume or 'run the same command again'}"
        print(*_notes(error), f"error: {error}; {fix}", sep="\n", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        exit_code = INTERRUPTED
    if exit_code == INTERRUPTED:
        print("interrupted" + (f"; {resume}" if resume else ""), file=sys.stderr)
    return exit_code


def _notes(error: Exception) -> list[str]:
    """What a run had finished when the error ended it."""
    return getattr(error, "__notes__", [])


def _stdout_is_closed() -> bool:
    """Whether stdout is a pipe that has no reader any more, as after `| head`."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command, with its text for a shell in `command`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = Parser(prog="longpo", description="Long-context preference optimisation for LLaMA-Factory.")
    parser.add_argument("--version", action="version", version=f"longpo {__version__}")
    parser.set_defaults(parser=parser, is_run=False)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(subparsers)
    options, rest = parser.parse_known_args(arguments)
    if any(word.startswith("-") for word in rest) or (rest and not hasattr(options, "overrides")):
        options.parser.refuse(rest, takes_settings=hasattr(options, "overrides"))
    if rest:  # argparse does not recognise key=value after an option
        options.overrides = [*options.overrides, *rest]
    options.command = shlex.join(["longpo", *arguments])
    return options
