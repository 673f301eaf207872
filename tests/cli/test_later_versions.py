"""Files that a later version has written: what they hold beyond ours changes nothing."""

import json
import sqlite3

import pytest
from conftest import judged
from stub import Stub
from test_ends import judged_run
from test_engine import a_run

from lf_longpo.generation.distributed import _merge
from lf_longpo.generation.generate import generate
from lf_longpo.models.batch_store import BatchStore
from lf_longpo.models.cache import CallCache, CallKey, StageTotals


def add_a_field(folder):
    """To each row of each journal, to each kept result, and to the cache's table."""
    for path in folder.glob("*.jsonl"):
        rows = [json.loads(line) | {"later": {"x": 1}} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    with sqlite3.connect(folder / "calls.sqlite") as db:
        for rowid in db.execute("SELECT stage, question, round, request, result FROM calls").fetchall():
            result = json.dumps(json.loads(rowid[4]) | {"later": 1})
            db.execute(
                "UPDATE calls SET result=? WHERE stage=? AND question=? AND round=? AND request=?", (result, *rowid[:4])
            )
        db.execute("ALTER TABLE calls ADD COLUMN later TEXT")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["longmab", "longreward"])
async def test_a_run_whose_rows_have_one_more_field_is_resumed(key, tmp_path, method):
    with Stub() if method == "longmab" else Stub(judged) as stub:
        if method == "longmab":
            config = a_run(stub, tmp_path, 4)
        else:
            config = judged_run(stub, tmp_path, 2, num_samples=3, min_responses=2, chunk_size=256)
        await generate(config)
        made, before = stub.chats, (tmp_path / "data/codes.jsonl").read_bytes()
        add_a_field(tmp_path / "run")
        result = await generate(config)  # from the journals
        assert result.summary["failed"] == 0 and (tmp_path / "data/codes.jsonl").read_bytes() == before
        for path in (tmp_path / "run").glob("*.jsonl"):
            path.unlink()
        (tmp_path / "data/codes.jsonl").unlink()
        result = await generate(config)  # from the call cache
        assert result.summary["failed"] == 0 and (tmp_path / "data/codes.jsonl").read_bytes() == before
        assert stub.chats == made
        await generate(config.model_copy(update={"end": None, "output_dir": tmp_path / "other"}))
        assert stub.chats == 2 * made


def test_tables_with_one_more_column_are_written_and_merged(tmp_path):
    key, ours = CallKey("rollout", "q", 3, "hash"), tmp_path / "run"
    shard = ours / "shards/00000000-00000001"
    shard.mkdir(parents=True)
    cache = CallCache(shard / "calls.sqlite")
    cache.open()
    add_a_field(shard)
    cache.put(key, {"text": "x", "prompt_tokens": 5, "completion_tokens": 2}, cost=0.5)
    cache.close()
    _merge(ours, [shard])
    merged = CallCache(ours / "calls.sqlite")
    merged.open()
    assert merged.totals() == {"rollout": StageTotals(1, 5, 2, 0.5, 0)}
    merged.close()


def test_a_store_of_batches_with_more_columns_is_written(tmp_path):
    store = BatchStore(tmp_path / "batches.sqlite")
    store.uploaded("f", ["a"])
    with sqlite3.connect(tmp_path / "batches.sqlite") as db:
        db.execute("ALTER TABLE files ADD COLUMN later TEXT")
        db.execute("ALTER TABLE requests ADD COLUMN later TEXT")
    store.uploaded("g", ["b"])
    assert store.find("b").file == "g" and store.upload("g").batch is None and store.upload("g").tried == 0
    store.close()
