"""Tokenizers from their tokenizer.json alone, for commands that only count tokens or cut texts.

The library `tokenizers` needs a few megabytes; transformers needs a gigabyte with PyTorch.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lf_longpo.models.embedded import is_embedded, tokenizer_path
from lf_longpo.models.folders import is_path

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_FILE = "tokenizer.json"


class FileTokenizer:
    """Has what `text.chunking` uses of a tokenizer of transformers.

    Args:
        backend: the tokenizer of the library `tokenizers`, without truncation and padding.
    """

    def __init__(self, backend: "Tokenizer") -> None:
        self.backend_tokenizer = backend

    def __call__(self, text: str, add_special_tokens: bool = False, **_: Any) -> dict[str, Any]:
        """The token ids of a text, and the start and end of each token in it."""
        encoding = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": encoding.ids, "offset_mapping": encoding.offsets}


@lru_cache(maxsize=2)
def load_tokenizer_file(name: str) -> FileTokenizer | None:
    """The tokenizer of a model folder, a hub name or an embedded model; None if its tokenizer.json cannot be read.

    Some models change their tokenizer when transformers loads it. Compare the result with what the run counted.
    """
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(_path(name))
    except Exception:  # `tokenizers` raises Exception itself where a file is missing or broken
        return None
    backend.no_truncation()
    backend.no_padding()
    return FileTokenizer(backend)


def _path(name: str) -> str:
    if is_embedded(name):
        return str(tokenizer_path(name) / _FILE)
    if is_path(name):
        return str(Path(name) / _FILE)
    from huggingface_hub import hf_hub_download

    return str(hf_hub_download(name, _FILE))
