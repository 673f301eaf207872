"""The data card of synthesized questions: their lengths, sources, licences and settings."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lf_longpo import __version__
from lf_longpo.config import Config
from lf_longpo.errors import UserError
from lf_longpo.files.journal import write_whole


class Card:
    """Writes questions with their data card.

    Args:
        kind: the subcommand of `longpo synthesize` that made them.
        config: its settings.
        tokenizer: the name of the tokenizer that counted their tokens.
    """

    def __init__(self, kind: str, config: Config, tokenizer: str) -> None:
        self._kind = kind
        self._config = config
        self._tokenizer = tokenizer
        self.tokens: list[int] = []
        """Tokens of each context."""
        self.remarks: list[str] = []
        """What else users should know; printed, not written."""
        self.sources: Counter[tuple[str, str]] = Counter()
        """Number of questions by source and licence."""

    def write(self, output: Path, rows: Iterable[dict[str, Any]]) -> None:
        """Writes the questions, and after them the card next to them.

        Raises:
            UserError: a row cannot be written as JSON.
        """
        write_whole(output, map(self._line, rows))
        write_whole(output.with_suffix(".card.md"), [self.text()])

    def _line(self, row: dict[str, Any]) -> str:
        self.tokens.append(row["tokens"])
        self.sources[str(row["source"]), str(row["licence"])] += 1
        try:
            text = json.dumps(row, ensure_ascii=False)
            text.encode()
        except (TypeError, UnicodeEncodeError) as error:
            id = row.get("id", row.get("idx"))
            raise UserError(f"question {id!r} cannot be written as JSON: {error}; fix or remove it") from None
        return f"{text}\n"

    def text(self) -> str:
        """The card, in Markdown."""
        ordered = sorted(self.tokens)
        marks = {"shortest": 0.0, "median": 0.5, "longest": 1.0}
        lengths = {name: ordered[round(share * (len(ordered) - 1))] for name, share in marks.items()}
        sources = "\n".join(f"| {source} | {licence} | {n} |" for (source, licence), n in sorted(self.sources.items()))
        settings = yaml.safe_dump(self._config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        summary = ", ".join(f"{name} {tokens:,}" for name, tokens in lengths.items())
        return (
            f"# {len(ordered)} long-context questions\n\n"
            f"Made by `longpo synthesize {self._kind}` (lf-longpo {__version__}).\n\n"
            f"Tokens per context, with the tokenizer of {self._tokenizer}: {summary}.\n\n"
            f"| source | licence | questions |\n| --- | --- | --- |\n{sources}\n\n"
            f"Settings:\n\n```yaml\n{settings}```\n"
        )
