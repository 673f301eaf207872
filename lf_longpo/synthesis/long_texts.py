"""The long texts of a run: documents are parsed, divided and filtered once, and then read from one file."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.config import SelfInstructConfig
from lf_longpo.data.questions import refuse_repeated_ids
from lf_longpo.data.records import names, record_of
from lf_longpo.engine.progress import counted
from lf_longpo.errors import UserError
from lf_longpo.files.journal import read_rows, write_whole
from lf_longpo.synthesis.documents import documents_state, other_files, read_documents
from lf_longpo.synthesis.near_duplicates import SeenTexts
from lf_longpo.text.chunking import chunk_sentences, count_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXTS, _STATE = "documents.jsonl", "documents.json"
# The settings that determine the texts, together with the files.
_SETTINGS = {"input_split", "licence", "min_tokens", "max_tokens", "near_duplicate"}
# A part has this factor more room, because whole sentences do not fill it exactly.
_MORE = 1.05


@dataclass(frozen=True, slots=True)
class LongText:
    """A document or a part of it."""

    id: str
    document: str
    """The document's id."""
    text: str
    tokens: int
    source: str
    licence: str

    @property
    def key(self) -> str:
        """Identifies it in journals and progress."""
        return self.id


class LongTexts:
    """The texts that questions are written about. Documents are parsed again only after they have changed.

    Args:
        config: the documents and the lengths of their parts.
        folder: `output_dir` of the run.
        tokenizer: counts tokens.

    Raises:
        UserError: a document cannot be used, two have the same id, or none is left.
    """

    def __init__(self, config: SelfInstructConfig, folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._folder = folder
        state, known = _state(config), _known(folder / _STATE)
        if not are_parsed(config, folder):
            (folder / _STATE).unlink(missing_ok=True)
            left_out: Counter[str] = Counter()
            texts = counted(_divided(config, tokenizer, left_out), "documents and parts read")
            write_whole(folder / _TEXTS, (json.dumps(asdict(text), ensure_ascii=False) + "\n" for text in texts))
            if number := other_files(config.inputs):
                left_out["files of other types"] = number
            known = {"state": state, "left_out": dict(left_out)}
            write_whole(folder / _STATE, [json.dumps(known)])
        self.left_out: dict[str, int] = known["left_out"]
        """Number of skipped documents and parts by reason."""

    def __iter__(self) -> Iterator[LongText]:
        return (record_of(LongText, row) for row in read_rows(self._folder / _TEXTS, names(LongText)))

    def move_to(self, folder: Path) -> None:
        """Moves the texts to another folder, which is there."""
        if folder != self._folder:
            (folder / _STATE).unlink(missing_ok=True)
            for name in (_TEXTS, _STATE):  # the state last: it says that the texts are complete
                shutil.move(self._folder / name, folder / name)
            self._folder = folder


def are_parsed(config: SelfInstructConfig, folder: Path) -> bool:
    """Whether a folder has the texts of these documents and settings."""
    return _known(folder / _STATE).get("state") == _state(config) and (folder / _TEXTS).is_file()


def _state(config: SelfInstructConfig) -> str:
    settings = config.model_dump_json(include=_SETTINGS)
    return f"{documents_state(config.inputs)} {config.tokenizer or config.model.model} {settings}"


def _known(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _divided(
    config: SelfInstructConfig, tokenizer: "PreTrainedTokenizerBase", left_out: Counter[str]
) -> Iterator[LongText]:
    """Parts of documents that are neither too long nor too short, without duplicates."""
    kept = 0
    for _, text in refuse_repeated_ids(_parts(config, tokenizer, left_out)):
        kept += 1
        yield text
    if not kept:
        reasons = ", ".join(f"{number} {why}" for why, number in left_out.items())
        raise UserError(
            f"input: no document is left ({reasons or 'the input has none'}); lower min_tokens ({config.min_tokens}), "
            "or name other documents"
        )


def _parts(
    config: SelfInstructConfig, tokenizer: "PreTrainedTokenizerBase", left_out: Counter[str]
) -> Iterator[tuple[str, LongText]]:
    """The parts, each with the place of its document; ids are not checked."""
    seen, several = SeenTexts(config.near_duplicate), len(config.inputs) > 1
    for place, document in read_documents(config.inputs, config.input_split):
        name = f"{document.source}/{document.id}" if several else document.id
        _, times = seen.like(document.text, place)
        if times > 1:
            left_out["there already"] += 1
            continue
        tokens = count_tokens(document.text, tokenizer)
        parts = [document.text]
        if tokens > config.max_tokens:
            # Parts of about equal length, so that no short part is left at the end.
            size = -(-tokens // -(-tokens // config.max_tokens))
            size = min(config.max_tokens, int(size * _MORE))
            parts = chunk_sentences(document.text, tokenizer, size, overlap=0)
        for number, part in enumerate(parts, 1):
            length = tokens if len(parts) == 1 else count_tokens(part, tokenizer)
            if length < config.min_tokens:
                left_out["too short"] += 1
                continue
            id = name if len(parts) == 1 else f"{name}#{number}"
            yield place, LongText(id, name, part, length, document.source, document.licence or config.licence)
