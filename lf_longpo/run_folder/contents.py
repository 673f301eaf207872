"""Reading a run's folder, during the run or after it. Large files are read row by row."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from lf_longpo.config import GenerateConfig
from lf_longpo.config.yaml_text import parse_yaml
from lf_longpo.data.pairs import PAIRS
from lf_longpo.data.questions import Source
from lf_longpo.data.records import PreferencePair, names
from lf_longpo.data.review import decisions_of
from lf_longpo.engine.failures import FAILURES
from lf_longpo.errors import UserError, first_line
from lf_longpo.files.journal import Row, read_rows, rows_with_offsets
from lf_longpo.files.run_dir import CONFIG, SUMMARY, started_in
from lf_longpo.models.cache import CALLS
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.run_folder.data_set import data_set_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SUMMED = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost", "seconds", "truncated")


class StageCalls(NamedTuple):
    """Totals of a stage's calls, over all starts of the run."""

    name: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost: float
    seconds: float
    """The sum over all timed calls; many calls run at the same time."""
    truncated: int
    """Calls with a reply that was cut off at its token limit."""
    timed: int
    """Calls with a known duration."""


class RunFolder:
    """The folder of a run of `longpo generate`.

    Args:
        path: the run's `output_dir`.

    Raises:
        UserError: the folder does not hold such a run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pairs: BinaryIO | None = None
        try:
            self.config = GenerateConfig.model_validate(parse_yaml((path / CONFIG).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(
                f"{path} holds no run: {CONFIG} is missing; name the output_dir of longpo generate"
            ) from None
        except ValueError as error:
            raise UserError(
                f"{path / CONFIG} is not a config of longpo generate: {first_line(error)}; name another folder"
            ) from None
        self._started_in = started_in(self.config.output_dir, path)

    @property
    def questions(self) -> Source:
        """The source of its questions."""
        config = self.config
        return Source(self.resolved(config.input), config.input_split, False, config.start, config.end)

    @property
    def data_set(self) -> Path | None:
        """The registered file of its pairs, or where an unfinished run will write it; valid from any working directory.

        None if there is no such file or place, as for a copy of the run's folder on another machine.
        """
        path = data_set_of(self.config)
        if not path.is_absolute():
            if self._started_in is None:
                return None
            path = self._started_in / path
        if path.is_file() or decisions_of(path).is_file() or (self.summary() is None and path.parent.is_dir()):
            return path
        return None

    def resolved(self, name: str) -> str:
        """A name in the configuration. If it is a file or folder, the result is valid from any working directory."""
        path = (self._started_in or Path()) / name
        return str(path) if path.exists() else name

    @property
    def tokenizer_name(self) -> str:
        """The model or folder of the tokenizer that counted the run's tokens: the policy's, if no other is set."""
        if self.config.tokenizer:
            return self.resolved(self.config.tokenizer)
        assert self.config.policy is not None, "GenerateConfig accepts no run without a policy and a tokenizer"
        return self.resolved(self.config.policy.model)

    @property
    def trusts_remote_code(self) -> bool:
        """Whether the run's models and tokenizers may run their own code."""
        return bool(self.config.policy and self.config.policy.trust_remote_code)

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer that counted the run's tokens.

        Raises:
            UserError: it cannot be loaded here.
        """
        return load_tokenizer(self.tokenizer_name, "tokenizer", self.trusts_remote_code)

    def summary(self) -> dict[str, Any] | None:
        """The run's summary.json; None while the run continues, or if it was killed."""
        try:
            summary = json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return summary if isinstance(summary, dict) else None

    def rows(self, name: str, fields: tuple[str, ...] = (), id_field: str = "id") -> Iterator[Row]:
        """The rows of one of its journals; none if the file is missing.

        Args:
            name: the file's name.
            fields: the fields that a row must have.
            id_field: the field with the id of a row.
        """
        return read_rows(self.path / name, fields, lambda row: str(row.get(id_field)))

    def pairs(self) -> Iterator[tuple[int, Row]]:
        """All pairs, each with the byte offset of its line, also those that later pairs of their question replaced."""
        if not (self.path / PAIRS).is_file():
            return
        self.close()
        # Kept open: the offsets stay valid when the run ends and replaces the file.
        self._pairs = (self.path / PAIRS).open("rb")
        yield from rows_with_offsets(self._pairs, names(PreferencePair))

    def pair_at(self, offset: int) -> Row:
        """The pair at a byte offset that `pairs` returned."""
        assert self._pairs is not None, "pairs() opens the file"
        self._pairs.seek(offset)
        row: Row = json.loads(self._pairs.readline())
        return row

    def close(self) -> None:
        """Closes the file of pairs."""
        if self._pairs:
            self._pairs.close()

    def failures(self) -> Iterator[Row]:
        """The rows of failures.jsonl."""
        return self.rows(FAILURES, ("reason",))


def read_stages(folder: Path) -> list[StageCalls]:
    """The totals of the calls of each stage of a run, from its call cache; changes nothing.

    Raises:
        UserError: calls.sqlite cannot be read.
    """
    path = folder / CALLS
    if not path.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            columns = {row[1] for row in db.execute("PRAGMA table_info(calls)")}
            if not columns:  # the file is just being created
                return []
            sums = (f"SUM({name})" if name in columns else "0" for name in _SUMMED)
            timed = "SUM(seconds > 0)" if "seconds" in columns else "0"
            rows = db.execute(f"SELECT stage, COUNT(*), {', '.join(sums)}, {timed} FROM calls GROUP BY stage")
            return [StageCalls(*row) for row in rows]
    except sqlite3.Error as error:
        raise UserError(f"{path} cannot be read: {error}; try again later") from None
