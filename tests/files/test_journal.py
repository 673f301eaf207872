"""Journals and atomic writes."""

import json
import subprocess
import sys
import threading

import pytest

from lf_longpo.files.journal import Journal, RowsById, row_id, row_of_line, write_whole


def test_an_incomplete_last_line_is_removed(tmp_path):
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


def test_broken_lines_in_between_are_skipped(tmp_path):
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


def test_a_row_that_cannot_be_written_names_the_file_and_is_removed(tmp_path):
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


@pytest.mark.parametrize(
    ("line", "value"),
    [(b"NaN", "nan"), (b"-Infinity", "-inf"), (b'"\\ud800"', repr("\ud800")), (b"1" * 40, "1" * 40), (b"0.1", "0.1")],
)
def test_rows_of_every_kind_that_python_writes_are_read(line, value):
    assert repr(row_of_line(b'{"id": "a", "x": ' + line + b"}\n", {"x"})["x"]) == value


def test_lines_that_are_not_rows_of_these_fields():
    for line in (b"{", b"[1]", b'{"y": 1}', b"\xff", b"", b"[" * 100_000):
        assert row_of_line(line, {"x"}) is None


def test_rows_are_there_while_another_thread_reads_on(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_text("".join(json.dumps({"id": name}) + "\n" for name in "abc"))
    reached, go_on = threading.Event(), threading.Event()

    def key(row):
        if row["id"] == "c":
            reached.set()
            assert go_on.wait(60)
        return row_id(row)

    rows = RowsById(path, (), key)
    thread = threading.Thread(target=rows.read_on)
    thread.start()
    assert reached.wait(60)
    rows.read_on()  # returns: the other thread is reading
    assert rows.rows("b") == [{"id": "b"}] and rows.rows("c") == []
    go_on.set()
    thread.join()
    assert rows.rows("c") == [{"id": "c"}]
    path.write_text(path.read_text() + json.dumps({"id": "b", "x": 1}) + "\n")
    rows.read_on()
    assert rows.rows("b") == [{"id": "b"}, {"id": "b", "x": 1}]
