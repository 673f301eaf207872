"""Rows as Parquet files."""

from conftest import write_jsonl

from lf_longpo.cli import main


def test_parquet_keeps_numbers_and_columns_that_come_late(tmp_path):
    from pyarrow import parquet

    rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "reward": 1, "late": None} for _ in range(200)]
    rows[150] |= {"reward": 0.5, "late": "here", "new": ["x"]}
    source = write_jsonl(tmp_path / "p.jsonl", rows)
    assert main(["export", str(source), str(tmp_path / "p.parquet")]) == 0
    made = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert made == [{"new": None, **row} for row in rows]
    write_jsonl(source, [*rows, {**rows[0], "reward": "high"}])
    assert main(["export", str(source), str(tmp_path / "q.parquet")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "p.parquet"]


def test_numbers_that_parquet_cannot_hold_are_refused(tmp_path, capsys):
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "number": 10**30}
    assert main(["export", str(write_jsonl(tmp_path / "p.jsonl", [row])), str(tmp_path / "out.parquet")]) == 2
    assert "Parquet cannot hold" in (said := capsys.readouterr().err) and "(column number: " in said
