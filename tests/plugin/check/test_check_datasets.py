"""`longpo check` on data sets that LLaMA-Factory cannot load or would read in part, and its copies of long ones."""

import json

import pytest
from conftest import write_jsonl
from test_check import Planted

from lf_longpo.cli import main
from lf_longpo.plugin.check.fix_lengths import _common_length, _texts
from lf_longpo.plugin.check.json_load_fault import load_fault
from lf_longpo.plugin.registry import load_dataset_info
from lf_longpo.plugin.row_shape import shape_of

PAIR = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
TEXTS = {
    "a missing comma": (PAIR * 2 + PAIR.replace(",", "", 1), "line 3 is not JSON"),
    "a cut-off line": (PAIR * 2 + PAIR[:-20], "line 3 is not JSON"),
    "a number for a text": (PAIR + PAIR.replace('"b"', "5"), "line 2: 'chosen' is a number, in earlier rows text"),
    "an object for a text": (PAIR + PAIR.replace('"b"', "{}"), "line 2: 'chosen' is an object, in earlier rows text"),
    "half of a character": (
        PAIR + PAIR.replace('"b"', '"\\ud83d"'),
        "line 2: the field chosen holds \\ud83d, half of a character",
    ),
    "a row that is no object": (PAIR + "5\n", "line 2 is a number, not an object"),
    "a byte order mark": ("\ufeff[" + PAIR.strip() + "]", "begins with a byte order mark"),
    "in a list": ("[" + PAIR + "," + PAIR.replace('"b"', "5") + "]", "record 2: 'chosen' is a number"),
    "beyond the first ten MB": (
        PAIR + PAIR.replace('"a"', '"' + "x" * 1000 + '"') * 11_000 + "{\n",
        "line 11002 is not",
    ),
}


@pytest.mark.parametrize(("text", "fault"), TEXTS.values(), ids=TEXTS)
def test_the_row_that_datasets_cannot_load_is_named(tmp_path, text, fault):
    from datasets import load_dataset

    path = tmp_path / ("rows.json" if "[" in text else "rows.jsonl")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Exception, match="generating the dataset"):
        load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert fault in load_fault(path)


def test_a_file_that_loads_has_no_fault(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"a": None, "b": 1}, {"a": "x", "b": 1.5}, {"b": 2, "c": []}])
    assert load_fault(path) is None
    assert load_fault(tmp_path / "rows.jsonl.gz").startswith("no file")


@pytest.fixture
def planted(tmp_path, models):
    return Planted(tmp_path, models("glm4"))


@pytest.mark.slow
def test_the_check_names_the_row_and_the_columns_that_are_not_read(planted):
    planted.rows[2] |= {"system": "Be brief.", "images": []}
    assert planted.found() == [
        "warning dataset lamps: has a column 'system' that its entry does not name, so training ignores it; add "
        f"it under columns in {planted.folder / 'dataset_info.json'}"
    ]
    planted.rows[2]["chosen"] = 5
    (found,) = planted.found()
    assert "rows.jsonl, line 3: 'chosen' is a number, in earlier rows text" in found


def test_an_entry_that_names_a_part_of_its_tags_is_an_error(planted):
    planted.entry |= {"formatting": "sharegpt", "tags": {"role_tag": "role", "content_tag": "content"}}
    (found,) = planted.found()
    assert "its entry names some tags but not user_tag, assistant_tag" in found


def test_a_column_of_images_that_is_not_there_is_an_error(planted):
    planted.entry["columns"]["images"] = "pictures"
    (found,) = planted.found()
    assert "error dataset lamps: has no column 'pictures' for images" in found


def copy_of(planted):
    """The copy that --fix-lengths writes, or None, and the exit code of a check of the copy."""
    planted.found()
    recipe = str(planted.folder / "recipe.yaml")
    main(["check", recipe, "--fix-lengths"])
    path = planted.folder / f"lamps_fit{planted.settings['cutoff_len']}.jsonl"
    if not path.exists():
        return None, None
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return rows, main(["check", recipe, f"dataset={path.stem}"])


LONG = "The lamp is lit. " * 60
CALL = json.dumps({"name": "search", "arguments": {"query": "lamp " * 20}})


def chat(*messages):
    return [{"from": role, "value": text} for role, text in messages]


@pytest.mark.slow
def test_questions_are_cut_and_tool_calls_and_answers_stay_whole(planted):
    planted.settings |= {"stage": "sft", "cutoff_len": 512}
    columns = {"messages": "conversations", "tools": "tools"}
    planted.entry = {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": columns}
    tools = json.dumps([{"name": "search", "description": "d", "parameters": {"type": "object", "properties": {}}}])
    long_call = CALL.replace("lamp ", "lamp " * 40)
    talks = [
        chat(("human", LONG + "Where?"), ("function_call", CALL), ("observation", LONG + "End."), ("gpt", "There.")),
        chat(("human", "Where?"), ("function_call", long_call), ("observation", "x"), ("gpt", "There.")),
    ]
    planted.rows = [{"conversations": talk, "tools": tools} for talk in talks]
    rows, exit_code = copy_of(planted)
    assert exit_code == 0 and len(rows) == 1 and rows[0]["tools"] == tools
    question, call, result, answer = (message["value"] for message in rows[0]["conversations"])
    assert (call, answer) == (CALL, "There.")
    for text, end in ((question, "Where?"), (result, "End.")):  # both are cut, to about the same length
        assert text.startswith("The lamp is lit.") and "\n...\n" in text and text.endswith(end)
    assert abs(len(question) - len(result)) < 20


@pytest.mark.slow
def test_a_system_text_and_history_are_cut_before_a_short_question(planted):
    planted.settings |= {"stage": "sft", "cutoff_len": 200}
    columns = {"prompt": "q", "response": "a", "system": "s", "history": "h"}
    planted.entry = {"file_name": "rows.jsonl", "columns": columns}
    planted.rows = [
        {"q": f"Where is lamp {number}?", "a": "There.", "s": LONG, "h": [[LONG, "Yes."]]} for number in (1, 2)
    ]
    rows, exit_code = copy_of(planted)
    assert exit_code == 0 and [row["q"] for row in rows] == ["Where is lamp 1?", "Where is lamp 2?"]
    assert all("\n...\n" in row["s"] and "\n...\n" in row["h"][0][0] and row["h"][0][1] == "Yes." for row in rows)


def test_earlier_answers_are_context_where_they_are_not_trained():
    talk = chat(("system", "s"), ("human", "q"), ("gpt", "a"), ("human", "q"), ("function_call", "{}"), ("gpt", "a"))
    shape = shape_of({"formatting": "sharegpt"})
    row = {"conversations": talk}
    assert [place[1] for place in _texts(row, shape, "sft")] == [0, 1, 3]
    assert [place[1] for place in _texts(row, shape, "kto")] == [0, 1, 2, 3]
    shape = shape_of({"columns": {"prompt": "q", "system": "s", "history": "h", "response": "a"}})
    row = {"q": "x", "a": "y", "s": None, "h": [["q", "a"]]}
    assert _texts(row, shape, "sft") == [("q",), ("h", 0, 0)]
    assert _texts(row, shape, "kto") == [("q",), ("h", 0, 0), ("h", 0, 1)]
    assert _texts(row | {"h": "none"}, shape, "sft") == [("q",)]


@pytest.mark.slow
def test_where_nothing_can_stay_no_copy_is_made(planted, capsys):
    planted.rows = [row | {"chosen": "word " * 100} for row in planted.rows]
    assert copy_of(planted) == (None, None)
    assert "no example can be cut to 64 tokens" in capsys.readouterr().out
    assert list(load_dataset_info(planted.folder)) == ["lamps"]
    assert main(["check", str(planted.folder / "recipe.yaml"), "--fix-lengths"]) == 2


def test_the_longest_texts_share_what_has_to_go():
    assert _common_length([100, 10], 30) == 70
    assert _common_length([100, 90, 10], 30) == 80
    assert _common_length([100, 90, 10], 190) == 3
    assert _common_length([10], 30) < 0 and _common_length([], 1) < 0
