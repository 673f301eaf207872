"""The data card of made questions: what they are, where they come from and how they were made."""

from collections import Counter
from typing import Any

import yaml

from lf_longpo import __version__
from lf_longpo.config import Config


class Card:
    """Counts rows as they are written.

    Args:
        kind: what made them.
        config: with which settings.
        tokenizer: what counted their tokens.
    """

    def __init__(self, kind: str, config: Config, tokenizer: str) -> None:
        self._kind = kind
        self._config = config
        self._tokenizer = tokenizer
        self.tokens: list[int] = []
        """Of each context."""
        self.remarks: list[str] = []
        """What people should know beside."""
        self.sources: Counter[tuple[str, str]] = Counter()
        """Questions by source and licence."""

    def note(self, row: dict[str, Any]) -> dict[str, Any]:
        """Counts a row and gives it back."""
        self.tokens.append(row["tokens"])
        self.sources[str(row["source"]), str(row["licence"])] += 1
        return row

    def text(self) -> str:
        """The card, in Markdown."""
        ordered = sorted(self.tokens)
        marks = {"shortest": 0.0, "median": 0.5, "longest": 1.0}
        lengths = {name: ordered[round(share * (len(ordered) - 1))] for name, share in marks.items()}
        sources = "\n".join(f"| {source} | {licence} | {n} |" for (source, licence), n in sorted(self.sources.items()))
        settings = yaml.safe_dump(self._config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        told = ", ".join(f"{name} {tokens:,}" for name, tokens in lengths.items())
        return (
            f"# {len(ordered)} long-context questions\n\n"
            f"Made by `longpo synthesize {self._kind}` (lf-longpo {__version__}).\n\n"
            f"Tokens of a context, by the tokenizer of {self._tokenizer}: {told}.\n\n"
            f"| source | licence | questions |\n| --- | --- | --- |\n{sources}\n\n"
            f"Settings:\n\n```yaml\n{settings}```\n"
        )
