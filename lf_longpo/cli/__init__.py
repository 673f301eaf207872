"""The command line: one file a command, with its arguments, its call and what it prints.

No logic is here; nothing imports this room. Modules that a command needs are imported when it runs, so that
`longpo --help` answers at once.
"""

from lf_longpo.cli.command_line import main

__all__ = ["main"]
