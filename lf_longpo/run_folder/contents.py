"""What a run's folder tells about the run, while it goes on or after it: read only, and row by row."""

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
from lf_longpo.engine.failures import FAILURES
from lf_longpo.errors import UserError, first_line
from lf_longpo.files.journal import Row, placed_rows, read_rows
from lf_longpo.files.run_dir import CONFIG, SUMMARY, started_in
from lf_longpo.models.cache import CALLS
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.run_folder.data_set import data_set_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SUMMED = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost", "seconds", "truncated")


class Stage(NamedTuple):
    """What the calls of a stage took, over every start of the run."""

    name: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost: float
    seconds: float
    """Of all timed calls together; many ran at the same time."""
    truncated: int
    """Calls whose reply was cut off at its most tokens."""
    timed: int
    """Calls whose time is known."""


class RunFolder:
    """A generation's folder.

    Args:
        path: the run's `output_dir`.

    Raises:
        UserError: no generation was begun there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pairs: BinaryIO | None = None
        try:
            self.config = GenerateConfig.model_validate(parse_yaml((path / CONFIG).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(f"{path} holds no run: {CONFIG} is missing; name the output_dir of a generation") from None
        except ValueError as error:
            raise UserError(f"{path / CONFIG} is no generation's: {first_line(error)}; name another folder") from None
        self._started_in = started_in(self.config.output_dir, path)

    @property
    def questions(self) -> Source:
        """Where its questions came from."""
        config = self.config
        return Source(self.found(config.input), config.input_split, False, config.start, config.end)

    @property
    def data_set(self) -> Path:
        """The file that its pairs are registered with, from any working directory."""
        return (self._started_in or Path()) / data_set_of(self.config)

    def found(self, name: str) -> str:
        """A file or folder that the configuration names, from any working directory; other names stay as they are."""
        path = (self._started_in or Path()) / name
        return str(path) if path.exists() else name

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """What counted its tokens.

        Raises:
            UserError: it is not to be had here.
        """
        config = self.config
        trust = bool(config.policy and config.policy.trust_remote_code)
        return load_tokenizer(self.found(config.tokenizer or config.policy.model), "tokenizer", trust)

    def summary(self) -> dict[str, Any] | None:
        """What the run said when it ended; None where it goes on, or was killed."""
        try:
            summary = json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return summary if isinstance(summary, dict) else None

    def rows(self, name: str, fields: tuple[str, ...] = (), id_field: str = "id") -> Iterator[Row]:
        """The rows of one of its journals; none where it has not been begun."""
        return read_rows(self.path / name, fields, lambda row: str(row.get(id_field)))

    def pairs(self) -> Iterator[tuple[int, Row]]:
        """All pairs, each behind the byte at which it begins; of two for one question the later one counts."""
        if not (self.path / PAIRS).is_file():
            return
        self.close()
        # Kept open, so that places stay those of this file when the run ends and writes it anew.
        self._pairs = (self.path / PAIRS).open("rb")
        yield from placed_rows(self._pairs, names(PreferencePair))

    def pair_at(self, place: int) -> Row:
        """The pair that begins at a byte of the file that `pairs` read."""
        self._pairs.seek(place)
        return json.loads(self._pairs.readline())

    def close(self) -> None:
        """Closes the file of pairs."""
        if self._pairs:
            self._pairs.close()

    def failures(self) -> Iterator[Row]:
        """What could not be done."""
        return self.rows(FAILURES, ("reason",))

    def stages(self) -> list[Stage]:
        """What calls took, stage by stage."""
        if not (self.path / CALLS).is_file():
            return []
        try:
            with closing(sqlite3.connect(f"{(self.path / CALLS).absolute().as_uri()}?mode=ro", uri=True)) as db:
                known = {row[1] for row in db.execute("PRAGMA table_info(calls)")}
                if not known:  # begun at this moment
                    return []
                sums = (f"SUM({name})" if name in known else "0" for name in _SUMMED)
                timed = "SUM(seconds > 0)" if "seconds" in known else "0"
                rows = db.execute(f"SELECT stage, COUNT(*), {', '.join(sums)}, {timed} FROM calls GROUP BY stage")
                return [Stage(*row) for row in rows]
        except sqlite3.Error as error:
            raise UserError(f"{self.path / CALLS} cannot be read: {error}; try again later") from None
