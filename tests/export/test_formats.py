"""Rows in the formats of TRL and LLaMA-Factory."""

import json
from pathlib import Path

import pytest
from conftest import write_jsonl

from lf_longpo.cli import main
from lf_longpo.data.records import ScoredResponse
from lf_longpo.export.formats import kto_rows
from lf_longpo.export.run_responses import AnsweredQuestion


def rows_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chosen": None}, "the field chosen must be a text, or messages with texts, not None; fill it or remove"),
        ({"rejected": [{"role": "assistant", "content": None}]}, "the field rejected must be a text, or messages"),
        (
            {"chosen": {"from": "gpt", "value": 7}},
            "the field chosen must be a text, or messages with texts, not {'from': 'gpt', 'value': 7}",
        ),
        ({"chosen": []}, "the field chosen must be a text"),
        ({"prompt": None}, "the field prompt must be a text"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, "a message of the field prompt has the role 'robot'"),
        ({"prompt": [{"role": ["user"], "content": "x"}]}, "a message of the field prompt has the role"),
        ({"prompt": [{"role": "user"}]}, "the field prompt must be a text"),
    ],
)
def test_a_pair_without_a_text_is_refused(tmp_path, capsys, changes, said):
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"} for _ in range(70)]
    rows[65] |= changes
    source = write_jsonl(tmp_path / "p.jsonl", rows)
    for name in ("out.jsonl", "out.parquet"):
        assert main(["export", str(source), str(tmp_path / name), "--to", "trl-dpo"]) == 2
        assert f"{source}, line 66: {said}" in capsys.readouterr().err and not (tmp_path / name).exists()


def test_a_text_sampled_twice_has_one_label():
    twice = [
        ScoredResponse("same", 1.0, 0),
        ScoredResponse("same", 0.0, 1),
        ScoredResponse("best", 1.0, 2),
        ScoredResponse("worst", 0.1, 3),
    ]
    rows = list(kto_rows([AnsweredQuestion("q", "p", twice)], None, conversational=False))
    assert [(row["completion"], row["label"], row["reward"]) for row in rows] == [
        ("same", False, 0.5),
        ("best", True, 1.0),
        ("worst", False, 0.1),
    ]


ASKED = {"from": "human", "value": "And of Basel?"}


EXPORTED = {
    "system, history and query": (
        {"instruction": "Name", "input": "a river.", "system": "Be brief.", "history": [["Name a city.", "Bern"]]}
        | {"chosen": "Aare", "rejected": "no"},
        [("system", "Be brief."), ("user", "Name a city."), ("assistant", "Bern"), ("user", "Name\na river.")],
    ),
    "a system column and messages": (
        {"conversations": [ASKED], "system": "Be brief.", "chosen": {"from": "gpt", "value": "Rhine"}}
        | {"rejected": {"from": "gpt", "value": "no"}},
        [("system", "Be brief."), ("user", "And of Basel?")],
    ),
    "a system message is read before the column": (
        {"conversations": [{"from": "system", "value": "Be kind."}, ASKED], "system": "Be brief."}
        | {"chosen": {"from": "gpt", "value": "Rhine"}, "rejected": {"from": "gpt", "value": "no"}},
        [("system", "Be kind."), ("user", "And of Basel?")],
    ),
}


@pytest.mark.parametrize(("row", "prompt"), EXPORTED.values(), ids=EXPORTED)
def test_the_prompt_has_all_that_llamafactory_reads(tmp_path, row, prompt):
    source = write_jsonl(tmp_path / "pairs.jsonl", [row])
    assert main(["export", str(source), str(tmp_path / "out.jsonl"), "--to", "trl-dpo"]) == 0
    (made,) = rows_of(tmp_path / "out.jsonl")
    assert [(message["role"], message["content"]) for message in made["prompt"]] == prompt
    assert set(made) == {"prompt", "chosen", "rejected"}


def test_messages_are_read_by_the_tags_of_their_entry(tmp_path):
    def said(who, text):
        return {"who": who, "text": text}

    row = {"talk": [said("Q", "Where?")], "good": said("A", "Here."), "bad": said("A", "No."), "functions": "[]"}
    write_jsonl(tmp_path / "rows.jsonl", [row])
    entry = {"file_name": "rows.jsonl", "formatting": "sharegpt", "ranking": True}
    entry |= {"columns": {"messages": "talk", "chosen": "good", "rejected": "bad", "tools": "functions"}}
    entry |= {"tags": {"role_tag": "who", "content_tag": "text", "user_tag": "Q", "assistant_tag": "A"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"talks": entry}))
    command = ["export", "talks", str(tmp_path / "out.jsonl"), "--dataset-dir", str(tmp_path), "--to"]
    assert main([*command, "trl-dpo"]) == 0
    assert rows_of(tmp_path / "out.jsonl") == [
        {
            "prompt": [{"role": "user", "content": "Where?"}],
            "chosen": [{"role": "assistant", "content": "Here."}],
            "rejected": [{"role": "assistant", "content": "No."}],
            "tools": "[]",
        }
    ]
    assert main([*command, "sharegpt"]) == 0
    assert rows_of(tmp_path / "out.jsonl")[0]["chosen"] == {"from": "gpt", "value": "Here."}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": None}, "line 2: the field chosen must be a text"),
        ({"chosen": [{"role": "judge", "content": "x"}]}, "line 2: a message of the field chosen has the role 'judge'"),
        (
            {"chosen": [{"role": ["assistant"], "content": "x"}]},
            "line 2: a message of the field chosen has the role ['assistant']",
        ),
        ({"chosen": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "tool calls are not converted"),
        (
            {"chosen": [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]},
            "line 2: the field chosen must be a text",
        ),
        ({"prompt": 5}, "line 2: the field prompt must be a text"),
        ({"history": ["Bern"]}, "line 2: 'history' must be a list of pairs"),
    ],
)
def test_a_row_that_has_no_such_form_is_named(tmp_path, capsys, changes, message):
    row = {"prompt": "p", "chosen": "c", "rejected": "r", "history": []}
    source = write_jsonl(tmp_path / "pairs.jsonl", [row, row | changes])
    assert main(["export", str(source), str(tmp_path / "out.jsonl"), "--to", "trl-dpo"]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out.jsonl").exists()
