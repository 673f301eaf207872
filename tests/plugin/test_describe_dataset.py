"""The entries that `longpo register` writes for files and data sets on the hub."""

import json

import pytest

from lf_longpo.errors import UserError
from lf_longpo.plugin.entries import describe_dataset


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


def test_hub_data_sets_are_described_by_the_options(tmp_path):
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
