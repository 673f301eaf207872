"""The command line: one file for each command, with its arguments, its call and what it prints.

The logic is in the rooms below, and nothing imports this room. A command imports what it needs when it runs, so that
`longpo --help` answers at once.
"""

from lf_longpo.cli.command_line import main

__all__ = ["main"]
