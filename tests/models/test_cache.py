"""The cache of model calls."""

import sqlite3

import pytest

from lf_longpo.errors import UserError
from lf_longpo.models.cache import CallCache, CallKey


def test_the_call_cache_outlives_its_process(tmp_path):
    key = CallKey("rollout", "q", 3, "hash")
    for _ in range(2):
        cache = CallCache(tmp_path / "calls.sqlite")
        cache.open()
        cache.put(key, {"text": "x", "prompt_tokens": 5, "completion_tokens": 2}, cost=0.5)
        assert cache.get(key)["text"] == "x"
        assert cache.get(key._replace(round=4)) is None
        assert cache.totals()["rollout"] == (1, 5, 2, 0.5, 0, 0)
        cache.close()


def test_a_call_cache_without_the_later_columns_is_extended(tmp_path):
    path = tmp_path / "calls.sqlite"
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE calls (stage TEXT, question TEXT, round INTEGER, request TEXT, result TEXT,"
            " prompt_tokens INTEGER, completion_tokens INTEGER,"
            " PRIMARY KEY (stage, question, round, request)) WITHOUT ROWID"
        )
        db.execute("INSERT INTO calls VALUES ('score', 'q', 0, 'h', '{}', 7, 1)")
    cache = CallCache(path)
    cache.open()
    cache.put(CallKey("score", "q", 1, "h"), {"prompt_tokens": 8, "completion_tokens": 2, "cached_tokens": 4}, cost=0.5)
    assert cache.totals()["score"] == (2, 15, 3, 0.5, 4, 0)
    cache.close()


def test_a_file_that_is_no_call_cache_is_named(tmp_path):
    path = tmp_path / "calls.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match=r"calls\.sqlite cannot be read"):
        CallCache(path).open()


def test_a_damaged_call_cache_is_an_error(tmp_path):
    path = tmp_path / "calls.sqlite"
    keys = [CallKey("rollout", f"q{number}", 0, "hash") for number in range(2000)]
    cache = CallCache(path)
    cache.open()
    for key in keys:
        cache.put(key, {"text": "x" * 100})
    cache.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"rot" * 20_000)
    cache = CallCache(path)
    cache.open()
    with pytest.raises(UserError, match=r"calls\.sqlite cannot be read .* move it away"):
        for key in keys:
            cache.get(key)
    cache.close()
