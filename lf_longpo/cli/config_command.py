"""`longpo config`: all settings of a command as YAML to start from."""

import argparse

from lf_longpo.cli.arguments import Subparsers, add_command


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "config",
        run,
        help="print all settings of a command with their defaults",
        description="Prints a commented YAML file with all settings of a command and their defaults. Settings without "
        "a default are comments: remove the # and set them.",
    )
    parser.usage = "longpo config COMMAND"
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="generate longmab, score, evaluate longqa, ...")


def run(options: argparse.Namespace) -> int:
    from lf_longpo.cli.settings_files import settings_commands, settings_of
    from lf_longpo.config.listing import commented_yaml

    print(commented_yaml(settings_of(options.words, settings_commands(by_method=True))), end="")
    return 0
