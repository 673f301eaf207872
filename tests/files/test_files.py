"""Journals, whole files, the call cache and the data set registry."""

import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lf_longpo.errors import UserError
from lf_longpo.export.row_writer import write_rows
from lf_longpo.files.journal import Journal, write_whole
from lf_longpo.models.cache import CallCache, CallKey
from lf_longpo.plugin.entries import describe_dataset
from lf_longpo.plugin.registry import load_dataset_info, ranking_entry, register_dataset


def test_a_torn_last_line_is_work_owed_again(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.append({"id": "a", "x": "é\n"})
        journal.append({"id": "b", "x": 2})
    with path.open("ab") as file:
        file.write(b'{"id": "c", "x"')
    with Journal(path) as journal:
        assert "c" not in journal and len(journal) == 2
        journal.append({"id": "c", "x": 3})
        assert journal.rows("a") == [{"id": "a", "x": "é\n"}]
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b", "c"]


def test_broken_lines_in_between_are_passed_over(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"id": "a"}\n\x00\x00\x00\n{"id": "b"}\n[]\n')
    with Journal(path) as journal:
        assert (len(journal), journal.skipped) == (2, 2)
        assert journal.rows("b") == [{"id": "b"}]


def test_whole_files_appear_complete_or_not_at_all(tmp_path):
    path = tmp_path / "sub" / "f.txt"
    write_whole(path, ["old"])

    def broken():
        yield "new"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_whole(path, broken())
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


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


def test_a_call_cache_from_before_costs_were_kept_goes_on(tmp_path):
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


def test_registering_keeps_foreign_entries_and_their_order(tmp_path):
    foreign = {"z": {"hf_hub_url": "a/b", "custom": [1]}, "a": {"file_name": "ü.json"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(foreign), encoding="utf-8-sig")
    register_dataset(tmp_path, "mine", ranking_entry("mine.jsonl"))
    register_dataset(tmp_path, "mine", ranking_entry("moved/mine.jsonl"))
    info = load_dataset_info(tmp_path)
    assert list(info) == ["z", "a", "mine"]
    assert {name: info[name] for name in foreign} == foreign
    assert info["mine"] == {
        "file_name": "moved/mine.jsonl",
        "ranking": True,
        "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    }


def test_an_entry_of_another_shape_is_kept_unless_told_otherwise(tmp_path):
    register_dataset(tmp_path, "d", {"file_name": "d.json"})
    with pytest.raises(UserError, match="'d' of another shape"):
        register_dataset(tmp_path, "d", ranking_entry("d.jsonl"))
    assert load_dataset_info(tmp_path) == {"d": {"file_name": "d.json"}}
    register_dataset(tmp_path, "d", ranking_entry("d.jsonl"), overwrite=True)
    assert load_dataset_info(tmp_path)["d"]["ranking"]


def test_a_link_stays_a_link_to_the_file_that_is_written(tmp_path):
    shared = tmp_path / "shared/registry.json"
    write_whole(shared, ['{"theirs": {"file_name": "x.json"}}'])
    shared.chmod(0o664)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dataset_info.json").symlink_to(shared)
        register_dataset(tmp_path / folder, folder, {"file_name": f"{folder}.json"})
        assert (tmp_path / folder / "dataset_info.json").is_symlink()
    assert list(json.loads(shared.read_text())) == ["theirs", "a", "b"]
    assert shared.stat().st_mode & 0o777 == 0o664
    # One lock for all folders that link to the file, so that they wait for each other.
    assert sorted(path.name for path in shared.parent.iterdir()) == ["registry.json", "registry.json.lock"]
    (tmp_path / "later.json").symlink_to(tmp_path / "shared/later.json")
    write_whole(tmp_path / "later.json", ["x"])
    assert (tmp_path / "shared/later.json").read_text() == "x"
    (tmp_path / "rows.parquet").symlink_to(tmp_path / "shared/rows.parquet")
    assert write_rows(tmp_path / "rows.parquet", [{"a": 1}]) == 1
    assert (tmp_path / "rows.parquet").is_symlink() and (tmp_path / "shared/rows.parquet").stat().st_size


def test_registering_at_the_same_time_loses_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        names = [f"d{number}" for number in range(40)]
        list(pool.map(lambda name: register_dataset(tmp_path, name, {"file_name": f"{name}.json"}), names))
    assert sorted(load_dataset_info(tmp_path)) == sorted(names)


def test_a_broken_registry_is_named_and_left_alone(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match=r"is not JSON.*nothing was written"):
        register_dataset(tmp_path, "d", {"file_name": "d.json"})
    assert (tmp_path / "dataset_info.json").read_text() == "{"
    with pytest.raises(UserError, match="exactly one of"):
        register_dataset(tmp_path, "d", {"ranking": True})


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        (
            {"prompt": "p", "chosen": "c", "rejected": "r", "id": 1},
            {"ranking": True, "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}},
        ),
        (
            {"instruction": "i", "input": "", "output": "o"},
            {"columns": {"prompt": "instruction", "query": "input", "response": "output"}},
        ),
        (
            {"instruction": "i", "input": "more", "chosen": "c", "rejected": "r"},
            {
                "ranking": True,
                "columns": {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
            },
        ),
        ({"conversations": []}, {"formatting": "sharegpt", "columns": {"messages": "conversations"}}),
        (
            {"messages": [{"role": "user", "content": "x"}]},
            {
                "formatting": "sharegpt",
                "columns": {"messages": "messages"},
                "tags": {
                    "role_tag": "role",
                    "content_tag": "content",
                    "user_tag": "user",
                    "assistant_tag": "assistant",
                    "observation_tag": "tool",
                    "function_tag": "function_call",
                    "system_tag": "system",
                },
            },
        ),
    ],
)
def test_local_files_describe_themselves(tmp_path, row, entry):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert describe_dataset(str(path), tmp_path / "info") == {"file_name": "../rows.jsonl", **entry}


def test_hub_data_sets_are_described_by_what_is_told(tmp_path):
    columns = {"prompt": "query", "chosen": "win"}
    entry = describe_dataset("org/name", tmp_path, ranking=True, columns=columns, subset="s", split="dpo")
    assert entry == {
        "hf_hub_url": "org/name",
        "subset": "s",
        "split": "dpo",
        "ranking": True,
        # LLaMA-Factory has no default for a column that an entry with columns does not name.
        "columns": {"prompt": "query", "chosen": "win", "rejected": "rejected"},
    }
    assert describe_dataset("org/name", tmp_path) == {"hf_hub_url": "org/name"}
    sharegpt = describe_dataset("org/name", tmp_path, formatting="sharegpt", ranking=True)
    assert sharegpt["columns"] == {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    partial = describe_dataset("org/name", tmp_path, columns={"prompt": "query"})
    assert partial["columns"] == {"prompt": "query", "response": "output"}


def test_a_column_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n')
    with pytest.raises(UserError, match=r"line 1: no column 'instruction' for prompt; there are question, answer"):
        describe_dataset(str(path), tmp_path)
    columns = {"prompt": "question", "response": "answer"}
    assert describe_dataset(str(path), tmp_path, columns=columns)["columns"] == columns


def test_a_row_that_finds_no_room_is_told_with_its_file_and_cut_off_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"id": "a"}\n')
    code = f"""
import resource
from pathlib import Path
from lf_longpo.export.row_writer import write_rows
from lf_longpo.files.journal import Journal
with Journal(Path({str(path)!r})) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
    try:
        journal.append({{"id": "b"}})
    except OSError as error:
        print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "File too large" in told and str(path) in told
    assert path.stat().st_size == 20
    with Journal(path) as journal:
        assert list(journal.ids()) == ["a"]
        journal.append({"id": "b"})
    assert path.read_text() == '{"id": "a"}\n{"id": "b"}\n'


def test_a_call_cache_that_rots_is_told_so(tmp_path):
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
