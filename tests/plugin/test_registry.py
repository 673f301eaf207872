"""LLaMA-Factory's data set registry."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from lf_longpo.errors import UserError
from lf_longpo.export.row_writer import write_rows
from lf_longpo.files.journal import write_whole
from lf_longpo.plugin.registry import load_dataset_info, ranking_entry, register_dataset


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


def test_an_entry_of_another_shape_is_kept_unless_overwritten(tmp_path):
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
