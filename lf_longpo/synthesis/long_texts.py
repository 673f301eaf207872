"""The long texts of a run: documents parsed once, divided, filtered, and then read from one file however often."""

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
# What beside the files determines the texts.
_SETTINGS = {"input_split", "licence", "min_tokens", "max_tokens", "near_duplicate"}
# Sentences do not fill a part to the last token.
_MORE = 1.05


@dataclass(frozen=True, slots=True)
class LongText:
    """A document, or a part of one."""

    id: str
    document: str
    """The document's id."""
    text: str
    tokens: int
    source: str
    licence: str

    @property
    def key(self) -> str:
        """Tells it from all others."""
        return self.id


class LongTexts:
    """What questions are written about. Documents are parsed where that was not done before, or they have changed.

    Args:
        config: which documents, and how long they may be.
        folder: keeps the texts.
        tokenizer: counts.

    Raises:
        UserError: a document cannot be used, two have one id, or none is left.
    """

    def __init__(self, config: SelfInstructConfig, folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._folder = folder
        state, known = _state(config), _known(folder / _STATE)
        if not are_parsed(config, folder):
            (folder / _STATE).unlink(missing_ok=True)
            left_out: Counter[str] = Counter()
            texts = counted(_divided(config, tokenizer, left_out), "documents and parts read")
            write_whole(folder / _TEXTS, (json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in texts))
            if others := other_files(config.inputs):
                left_out["files of other types"] = others
            known = {"state": state, "left_out": dict(left_out)}
            write_whole(folder / _STATE, [json.dumps(known)])
        self.left_out: dict[str, int] = known["left_out"]
        """Documents and parts by what they were left out for."""

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
    """Documents in parts that are neither too long nor too short, without those that were there already."""
    kept = 0
    for _, one in refuse_repeated_ids(_parts(config, tokenizer, left_out)):
        kept += 1
        yield one
    if not kept:
        told = ", ".join(f"{number} {why}" for why, number in left_out.items())
        raise UserError(f"input: no document is left ({told or 'there is none'}); min_tokens is {config.min_tokens}")


def _parts(
    config: SelfInstructConfig, tokenizer: "PreTrainedTokenizerBase", left_out: Counter[str]
) -> Iterator[tuple[str, LongText]]:
    """Behind the places of their documents; ids may stand twice."""
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
            # About equally long, so that no short end is left over.
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
