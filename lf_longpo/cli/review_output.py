"""What commands that apply review decisions share: their option and what they print."""

import argparse
from collections.abc import Mapping

from lf_longpo.errors import UserError


def check_only_accepted(options: argparse.Namespace) -> None:
    """Raises `UserError` if --only-accepted is given without --reviewed."""
    if options.only_accepted and not options.reviewed:
        raise UserError("--only-accepted needs --reviewed; add it")


def print_decisions(counts: Mapping[str, int], only_accepted: bool) -> None:
    """Prints how many pairs have each decision, and which were removed.

    Args:
        counts: see `reviewed_rows`.
        only_accepted: whether undecided pairs were removed.
    """
    accepted = f"{counts['accept']:,} accepted, {counts['edit']:,} edited"
    if only_accepted:
        lines = [f"{accepted}; {counts['reject']:,} rejected and {counts['undecided']:,} undecided pairs were removed"]
    else:
        lines = [f"{accepted}, {counts['undecided']:,} undecided; {counts['reject']:,} rejected pairs were removed"]
        if counts["undecided"]:
            lines.append(
                f"{counts['undecided']:,} of the {counts['kept']:,} pairs are undecided; to remove them, add "
                "--only-accepted"
            )
    if counts["choose"]:
        lines.append(f"{counts['choose']:,} pairs were chosen from questions without a pair")
    if counts["gone"]:
        lines.append(f"{counts['gone']:,} decisions are about pairs that no longer exist")
    print("\n".join(lines))
