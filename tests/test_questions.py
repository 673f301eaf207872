import json

import pytest
from conftest import REAL_DATA, write_jsonl

from lf_longpo.errors import UserError
from lf_longpo.questions import Source, check_questions, read_questions

GOOD = {"id": "a", "question": "Why?", "answer": "So.", "context": "Text."}


def test_both_families_lists_and_integer_ids(tmp_path):
    rows = [
        {"id": 7, "input": "Why?", "answer": ["So.", "Thus."], "context": "Text.", "extra": 1},
        {"idx": "b", "query": "Who?", "answer": "She.", "context": "Text."},
    ]
    first, second = read_questions(Source(str(write_jsonl(tmp_path / "q.jsonl", rows))))
    assert (first.id, first.question, first.answers) == ("7", "Why?", ("So.", "Thus."))
    assert (second.id, second.question, second.answers) == ("b", "Who?", ("She.",))


def test_bom_crlf_and_blank_lines(tmp_path):
    path = tmp_path / "q.jsonl"
    second = b'{"id":"b","question":"Q","answer":"A","context":"C\\r\\nD"}'
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n" + second + b"\r\n")
    assert [question.context for question in read_questions(Source(str(path)))] == ["Text.", "C\r\nD"]


def test_json_and_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    listed = tmp_path / "q.json"
    listed.write_text(json.dumps([GOOD]), encoding="utf-8-sig")
    parquet = tmp_path / "q.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([GOOD]), parquet)
    assert list(read_questions(Source(str(listed)))) == list(read_questions(Source(str(parquet))))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", r"line 2 is not JSON.*one object a line"),
        ("[1]", r"line 2: an object with id"),
        (json.dumps(GOOD | {"id": "b", "question": " "}), r"line 2: the field question is empty"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "context"}), r"line 2: the field context is missing"),
        (json.dumps(GOOD | {"id": "b", "answer": []}), r"line 2: the field answer is an empty list"),
        (json.dumps(GOOD | {"id": "b", "answer": ["x", ""]}), r"line 2: the field answer is empty"),
        (json.dumps(GOOD | {"id": "b", "answer": 3}), r"line 2: the field answer must be text"),
        (json.dumps(GOOD | {"id": 1.5}), r"line 2: the field id must be text, not float"),
        (json.dumps(GOOD), r"line 2: id 'a' stands already in .*line 1; make ids unique"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(UserError, match=message) as error:
        check_questions(Source(str(path)))
    assert str(path) in str(error.value)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no file .*nowhere\.jsonl"):
        check_questions(Source(str(tmp_path / "nowhere.jsonl")))
    (tmp_path / "q.txt").write_text("x")
    with pytest.raises(UserError, match=r"is none of \.jsonl, \.json, \.parquet"):
        check_questions(Source(str(tmp_path / "q.txt")))
    (tmp_path / "q.parquet").write_text("x")
    with pytest.raises(UserError, match=r"is no Parquet file that can be read \(after record 0\)"):
        check_questions(Source(str(tmp_path / "q.parquet")))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no questions"):
        check_questions(Source(str(tmp_path / "empty.jsonl")))
    (tmp_path / "latin.jsonl").write_bytes('{"id": "é"}'.encode("latin-1"))
    with pytest.raises(UserError, match="line 1 is not UTF-8"):
        check_questions(Source(str(tmp_path / "latin.jsonl")))


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real data is not beside the checkout")
def test_longreward_data_is_read_as_it_is():
    (question,) = read_questions(Source(str(REAL_DATA / "longreward_sft.jsonl")))
    assert len(question.context) > 40_000
