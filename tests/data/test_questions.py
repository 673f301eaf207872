import csv
import json

import pytest
from conftest import REAL_DATA, write_jsonl

from lf_longpo.data.questions import Source, check_questions, read_questions
from lf_longpo.errors import UserError

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
        ("not json", r"line 2 is not JSON.*one object per line"),
        ("[1]", r"line 2: must be an object with id, question, answer, context, not list; write one object per row"),
        (json.dumps(GOOD | {"id": "b", "question": " "}), r"line 2: the field question is empty"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "context"}), r"line 2: the field context is missing"),
        (json.dumps(GOOD | {"id": "b", "answer": []}), r"line 2: the field answer is an empty list"),
        (json.dumps(GOOD | {"id": "b", "answer": ["x", ""]}), r"line 2: the field answer is empty"),
        (json.dumps(GOOD | {"id": "b", "answer": 3}), r"line 2: the field answer must be text"),
        (json.dumps(GOOD | {"id": 1.5}), r"line 2: the field id must be text, not float"),
        (json.dumps(GOOD), r"line 2: id 'a' is already used in .*line 1; make ids unique"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(UserError, match=message) as error:
        check_questions(Source(str(path)))
    assert str(path) in str(error.value)


def test_published_names_of_longmab_longreward_and_longbench(tmp_path):
    rows = [
        {"id": 7, "input": "Where?", "context": "Thun.", "answers": ["Thun", "in Thun"]},  # LongMab-PO's evaluation
        {"_id": "b", "input": "Who?", "context": "She.", "answers": ["She"], "dataset": "qasper", "all_classes": None},
        {"idx": "c", "query": "When?", "context": "1931.", "answer": "1931"},
        {"id": "d", "question": "", "input": "Why?", "context": "So.", "answer": None, "answers": ["So"]},
    ]
    found = list(read_questions(Source(str(write_jsonl(tmp_path / "q.jsonl", rows)))))
    assert [(one.id, one.question, one.answers) for one in found] == [
        ("7", "Where?", ("Thun", "in Thun")),
        ("b", "Who?", ("She",)),
        ("c", "When?", ("1931",)),
        ("d", "Why?", ("So",)),
    ]


def test_csv_with_line_breaks_quotes_and_contexts_of_any_length(tmp_path):
    context = 'Line 1, "so".\r\nLine 2.\n' * 20_000
    with (tmp_path / "q.CSV").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([GOOD, ("a", "Why?", "So.", context), (7, "Wo, 河?", "Da", "Text")])
    first, second = read_questions(Source(str(tmp_path / "q.CSV")))
    assert (first.id, first.context) == ("a", context)
    assert (second.id, second.question, second.answers) == ("7", "Wo, 河?", ("Da",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,question,answer,context\na,Q,A,T\nb,Q,A,T,more\n", "line 3: 5 cells, but the header has 4"),
        ('id,question,answer,context\na,Q,A,"T\nU"\nb,Q,,T\n', "line 4: the field answer is empty"),
        ("id;question;answer;context\na;Q;A;T\n", r"line 2: .*missing; .*\(the row has id;question;answer;context\)"),
        ('id,question,answer,context\na,Q,A,"T', "line 2: not CSV: unexpected end of data"),
        ("id,id,question\n", "line 1: two columns have the same name"),
    ],
)
def test_bad_csv_is_named_by_line(tmp_path, text, message):
    (tmp_path / "q.csv").write_text(text, newline="")
    with pytest.raises(UserError, match=message):
        check_questions(Source(str(tmp_path / "q.csv")))


def test_json_lines_in_a_json_file_and_endings_in_upper_case(tmp_path):
    for name in ("q.json", "q.JSON", "q.JSONL"):
        path = write_jsonl(tmp_path / name, [GOOD, GOOD | {"id": "b"}])
        assert [one.id for one in read_questions(Source(str(path)))] == ["a", "b"]


@pytest.mark.parametrize("name", ["q.jsonl", "q.json", "q.csv", "q.parquet"])
def test_a_git_lfs_pointer_is_an_error(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1e08\nsize 886\n")
    with pytest.raises(UserError, match=f"{name} is a Git LFS pointer, not the data; run git lfs pull"):
        check_questions(Source(str(tmp_path / name)))


def test_one_object_over_several_lines_is_one_row(tmp_path):
    path = tmp_path / "q.json"
    path.write_text(json.dumps(GOOD, indent=1))
    assert [one.id for one in read_questions(Source(str(path)))] == ["a"]
    path.write_text(json.dumps({"version": 1, "data": [GOOD]}, indent=1))
    with pytest.raises(UserError, match=r"record 1: the field id .* is missing; .*\(the row has version, data\)"):
        check_questions(Source(str(path)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"context": ["One.", "Two."]}, "the field context must be text, not list; join its passages into one text"),
        ({"context": {"title": []}, "supporting_facts": []}, "not dict; run longpo synthesize multihop"),
        ({"context": None, "paragraphs": [{}]}, "context is missing; .*; run longpo synthesize multihop"),
        ({"answer": "['Thun', 'in Thun']"}, "the field answer holds a list as text; write the questions as .jsonl"),
        ({"answer": 42}, "the field answer must be text or a list of texts, not int; write it as text"),
        (
            {"question": None},
            r"the field question \(or input or query\) is missing; add it \(the row has id, question, ",
        ),
    ],
)
def test_the_error_says_how_to_fix_a_row(tmp_path, changes, said):
    path = write_jsonl(tmp_path / "q.jsonl", [GOOD | changes])
    with pytest.raises(UserError, match=f"line 1: .*{said}"):
        check_questions(Source(str(path)))


def test_all_bad_rows_are_reported_at_once_the_first_ten_and_the_number(tmp_path):
    rows = [GOOD | {"id": str(number)} for number in range(14)]
    for number in range(1, 14):
        rows[number]["question"] = ""
    rows[2] = rows[0]
    path = write_jsonl(tmp_path / "q.jsonl", rows)
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(UserError) as error:
        check_questions(Source(str(path)))
    first, *lines, last = str(error.value).splitlines()
    assert (first, last) == ("14 rows cannot be used:", "... and 4 more")
    assert [line.split(", line ")[1].split(":")[0] for line in lines] == [str(number) for number in range(2, 12)]
    assert "line 3: id '0' is already used in" in lines[1]


@pytest.mark.parametrize("field", ["id", "question", "answer", "context", "extra"])
def test_half_characters_are_refused_where_rows_are_read(tmp_path, field):
    rows = [GOOD | {"id": "b"}, GOOD | {field: ["x \ud83d"] if field == "answer" else "x \ud83d"}]
    for name in ("q.jsonl", "q.json"):
        path = tmp_path / name
        path.write_text(json.dumps(rows) if name == "q.json" else "".join(f"{json.dumps(row)}\n" for row in rows))
        with pytest.raises(UserError, match=rf"{path}, (line|record) 2: the field {field} holds \\ud83d, half of"):
            check_questions(Source(str(path)))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no file .*nowhere\.jsonl"):
        check_questions(Source(str(tmp_path / "nowhere.jsonl")))
    (tmp_path / "q.txt").write_text("x")
    with pytest.raises(UserError, match=r"is not one of \.jsonl, \.json, \.parquet"):
        check_questions(Source(str(tmp_path / "q.txt")))
    (tmp_path / "q.parquet").write_text("x")
    with pytest.raises(UserError, match=r"cannot be read as Parquet \(after record 0\)"):
        check_questions(Source(str(tmp_path / "q.parquet")))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no questions"):
        check_questions(Source(str(tmp_path / "empty.jsonl")))
    (tmp_path / "latin.jsonl").write_bytes('{"id": "é"}'.encode("latin-1"))
    with pytest.raises(UserError, match="line 1 is not UTF-8"):
        check_questions(Source(str(tmp_path / "latin.jsonl")))


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real data is not next to the checkout")
def test_longreward_data_is_read_as_it_is():
    (question,) = read_questions(Source(str(REAL_DATA / "longreward_sft.jsonl")))
    assert len(question.context) > 40_000
