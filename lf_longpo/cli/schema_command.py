"""`longpo schema`: the settings of a command for editors."""

import argparse

from lf_longpo.cli.arguments import Subparsers, add_command


def add(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "schema",
        run,
        help="print the JSON Schema of a command's settings",
        description="Prints the JSON Schema of a command's settings file. Editors complete and explain the keys of a "
        "YAML file that begins with `# yaml-language-server: $schema=FILE`.",
    )
    parser.usage = "longpo schema COMMAND"
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="generate, score, evaluate longqa, ...")


def run(options: argparse.Namespace) -> int:
    import json

    from lf_longpo.cli.settings_files import settings_commands, settings_of
    from lf_longpo.config.listing import json_schema

    print(json.dumps(json_schema(settings_of(options.words, settings_commands())), indent=2, ensure_ascii=False))
    return 0
