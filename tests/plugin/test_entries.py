"""Entries of dataset_info.json: what `longpo register` writes about a file, held against the real LLaMA-Factory."""

import json
import random
from contextlib import suppress

import pytest
from conftest import write_jsonl
from test_llamafactory import loaded_by_llamafactory

from lf_longpo.cli import main
from lf_longpo.data.review import placed_pairs
from lf_longpo.errors import UserError, first_line
from lf_longpo.export.formats import preference_rows, sharegpt_rows
from lf_longpo.files.faults import Faults
from lf_longpo.plugin.entries import describe_dataset
from lf_longpo.plugin.registry import load_dataset_info
from lf_longpo.plugin.row_shape import DEFAULT_TAGS, drop_reason, shape_of, type_fault
from lf_longpo.run_folder.pair_sets import find_pair_set

ALPACA = {"instruction": "Name a river.", "input": "", "output": "Aare"}
ALPACA_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}
PAIR = {"prompt": "Name a river.", "chosen": "Aare", "rejected": "no"}
PAIR_COLUMNS = {column: column for column in PAIR}
CHAT = [{"from": "human", "value": "Name a river."}, {"from": "gpt", "value": "Aare"}]
OPENAI = [{"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "Aare"}]
OPENAI_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function_call",
    "system_tag": "system",
}
TRL = {
    "prompt": OPENAI[:1],
    "chosen": [{"role": "assistant", "content": "The Aare."}],
    "rejected": [{"role": "assistant", "content": "No."}],
}

DESCRIBED = {
    "system and history": (
        [ALPACA, ALPACA | {"system": "Briefly.", "history": [["Name a city.", "Bern"]]}],
        {"columns": ALPACA_COLUMNS | {"system": "system", "history": "history"}},
    ),
    "images, videos, audios, tools": (
        [ALPACA | {"images": ["a.png"], "videos": [], "audios": [], "tools": "[]"}],
        {"columns": ALPACA_COLUMNS | {name: name for name in ("images", "videos", "audios", "tools")}},
    ),
    "KTO": ([ALPACA | {"kto_tag": True}], {"columns": ALPACA_COLUMNS | {"kto_tag": "kto_tag"}}),
    "TRL's KTO": (
        [{"prompt": "p", "completion": "c", "label": False}],
        {"columns": {"prompt": "prompt", "response": "completion", "kto_tag": "label"}},
    ),
    "pairs with a system text": (
        [PAIR | {"system": "Briefly.", "label": True}],
        {"ranking": True, "columns": PAIR_COLUMNS | {"system": "system"}},
    ),
    "messages with roles": (
        [{"conversations": OPENAI}],
        {"formatting": "sharegpt", "columns": {"messages": "conversations"}, "tags": OPENAI_TAGS},
    ),
    "messages with observations under OpenAI's keys": (
        [{"messages": [*OPENAI[:1], {"role": "observation", "content": "x"}]}],
        {
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": OPENAI_TAGS | {"observation_tag": "observation"},
        },
    ),
    "pairs of messages": (
        [{"conversations": CHAT[:1], "chosen": CHAT[1], "rejected": CHAT[1], "system": "s", "tools": "[]"}],
        {
            "formatting": "sharegpt",
            "ranking": True,
            "columns": {
                "messages": "conversations", "chosen": "chosen", "rejected": "rejected", "system": "system",
                "tools": "tools",
            },
        },
    ),
    "pretraining": ([{"text": "River.", "url": "x"}], {"columns": {"prompt": "text"}}),
    "prompts only": ([{"prompt": "Name a river."}], {"columns": {"prompt": "prompt"}}),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "entry"), DESCRIBED.values(), ids=DESCRIBED)
def test_an_entry_names_every_column_that_training_can_read(tmp_path, rows, entry):
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert describe_dataset(str(path), tmp_path) == {"file_name": "rows.jsonl", **entry}


def test_tags_that_are_given_leave_the_others_their_values(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"messages": OPENAI}])
    assert describe_dataset(str(path), tmp_path, tags={"role_tag": "role"})["tags"] == OPENAI_TAGS
    path = write_jsonl(tmp_path / "own.jsonl", [{"messages": [{"speaker": "human", "value": "Name a river."}]}])
    own = {"role_tag": "speaker"}
    assert describe_dataset(str(path), tmp_path, tags=own)["tags"] == DEFAULT_TAGS | own
    hub = describe_dataset("org/name", tmp_path, formatting="sharegpt", tags={"role_tag": "role", "user_tag": "user"})
    assert hub["tags"] == DEFAULT_TAGS | {"role_tag": "role", "user_tag": "user"}


def test_columns_that_are_given_are_used_once(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"instruction": "i", "system": "the answer", "output": "unused"}])
    entry = describe_dataset(str(path), tmp_path, columns={"response": "system"})
    assert entry["columns"] == {"prompt": "instruction", "response": "system"}


REFUSED = {
    "TRL's pairs": (TRL, {}, r"line 1: 'prompt' is a list.*longpo export .*rows.jsonl OUTPUT.jsonl --to sharegpt"),
    "TRL's pairs with a text as prompt": (TRL | {"prompt": "p"}, {}, r"'chosen' is a list.*--to sharegpt"),
    "a response that is an object": (ALPACA | {"output": {"city": "Bern"}}, {}, r"line 1: 'output' is an object; "),
    "a response that is a number": (ALPACA | {"output": 5}, {}, "'output' is a number"),
    "pairs of objects": (PAIR | {"chosen": {"text": "x"}}, {}, "'chosen' is an object"),
    "responses as texts next to messages": (
        {"conversations": CHAT[:1], "chosen": "Aare", "rejected": "no"},
        {},
        "'chosen' is text; LLaMA-Factory reads one object with 'from' and 'value'",
    ),
    "tools that are no text": (ALPACA | {"tools": [{"name": "x"}]}, {}, "'tools' is a list"),
    "history that is no list of pairs": (ALPACA | {"history": ["Bern"]}, {}, "'history' must be a list of pairs"),
    "messages with other keys": ({"messages": [{"who": "a", "what": "b"}]}, {}, "has the keys who, what, not 'from'"),
    "roles that are not known": (
        {"messages": [{"from": "Q", "value": "a"}, {"from": "A", "value": "b"}]},
        {},
        "the roles are 'Q', 'A'; name them with --tags user_tag",
    ),
    "roles that are no text": (
        {"messages": [{"from": ["human"], "value": "a"}]},
        {},
        "message 1 of 'messages' has a list as 'from'",
    ),
    "no response under a known name": ({"prompt": "p", "answer": "a"}, {}, "no column 'output' for response"),
    "a column that is not there": (ALPACA, {"columns": {"system": "sys"}}, "no column 'sys' for system"),
    "a column that LLaMA-Factory has not": (ALPACA, {"columns": {"promt": "x"}}, "LLaMA-Factory has no 'promt'"),
    "a tag that LLaMA-Factory has not": ({"messages": CHAT}, {"tags": {"role": "x"}}, "LLaMA-Factory has no 'role'"),
}


@pytest.mark.parametrize(("row", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_rows_that_llamafactory_could_not_use_are_refused(tmp_path, row, options, message):
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    with pytest.raises(UserError, match=message):
        describe_dataset(str(path), tmp_path, **options)


def test_the_command_says_what_training_does_not_read(tmp_path, capsys):
    path = write_jsonl(tmp_path / "rows.jsonl", [PAIR | {"id": "q1", "reward": 0.5}])
    assert main(["register", str(path), "--name", "pairs", "--dataset-dir", str(tmp_path)]) == 0
    assert "columns that training does not read: id, reward" in capsys.readouterr().out
    path = write_jsonl(tmp_path / "text.jsonl", [{"body": "River.", "title": "x"}])
    command = ["register", str(path), "--name", "text", "--dataset-dir", str(tmp_path), "--columns", "prompt=body"]
    assert main(command) == 0
    assert "no column holds the response: only the stages pt and ppo" in capsys.readouterr().out
    assert load_dataset_info(tmp_path)["text"] == {"file_name": "text.jsonl", "columns": {"prompt": "body"}}


def test_the_reason_of_an_error_is_in_its_cause():
    cause = ValueError("Column(/a) changed from string to number in row 2")
    error = RuntimeError("An error occurred while generating the dataset")
    error.__cause__ = cause
    assert first_line(error) == str(cause)
    assert first_line(RuntimeError("\nfirst\nsecond")) == "first" and first_line(RuntimeError()) == "RuntimeError"


def test_a_folder_has_files_of_one_type(tmp_path):
    write_jsonl(tmp_path / "rows/a.jsonl", [ALPACA])
    (tmp_path / "rows/b.json").write_text(json.dumps([ALPACA]))
    assert describe_dataset(str(tmp_path / "rows"), tmp_path) == {"file_name": "rows", "columns": ALPACA_COLUMNS}
    (tmp_path / "rows/c.csv").write_text("a\n")
    with pytest.raises(UserError, match=r"c\.csv and a\.jsonl have different types"):
        describe_dataset(str(tmp_path / "rows"), tmp_path)
    (tmp_path / "rows/README.md").write_text("a")
    with pytest.raises(UserError, match=r"README\.md has none of the types that LLaMA-Factory loads \(\.jsonl, "):
        describe_dataset(str(tmp_path / "rows"), tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="none is empty"):
        describe_dataset(str(tmp_path / "none"), tmp_path)


def test_an_ending_in_capitals_is_named(tmp_path):
    """LLaMA-Factory 0.9.5 compares endings as they are written."""
    (tmp_path / "rows.JSON").write_text(json.dumps([ALPACA]))
    with pytest.raises(UserError, match=r"rename it to rows\.json"):
        describe_dataset(str(tmp_path / "rows.JSON"), tmp_path)
    (tmp_path / "dataset_info.json").write_text(json.dumps({"codes": {"file_name": "rows.JSON"}}))
    with pytest.raises(ValueError, match="Allowed file types"):
        loaded_by_llamafactory(tmp_path, "smollm2", 256, "sft")


def test_a_file_in_a_cloud_is_described(tmp_path):
    columns = {"prompt": "p", "response": "r"}
    entry = describe_dataset("s3://bucket/rows.jsonl", tmp_path, columns=columns)
    assert entry == {"cloud_file_name": "s3://bucket/rows.jsonl", "columns": columns}


def test_a_row_further_on_that_is_broken_is_named(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(PAIR) + "\n{\n")
    registered(tmp_path, path)
    assert "LLaMA-Factory cannot load it: " in (said := capsys.readouterr().out) and "line 2 is not JSON" in said
    assert load_dataset_info(tmp_path)["codes"]["ranking"]


def registered(folder, path, *options):
    assert main(["register", str(path), "--name", "codes", "--dataset-dir", str(folder), *options]) == 0


def decoded(folder, stage, cutoff_len=512):
    tokenizer, examples = loaded_by_llamafactory(folder, "smollm2", cutoff_len, stage)
    name = "chosen_input_ids" if stage == "dpo" else "input_ids"
    return [tokenizer.decode(example[name]) for example in examples]


@pytest.mark.slow
def test_llamafactory_sees_system_and_history(tmp_path):
    path = write_jsonl(
        tmp_path / "rows.jsonl", [ALPACA | {"system": "Be brief.", "history": [["Name a city.", "Bern"]]}]
    )
    registered(tmp_path, path)
    (text,) = decoded(tmp_path, "sft")
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>") and "Name a city.<|im_end|>" in text


def test_llamafactory_sees_messages_with_roles_and_tools(tmp_path):
    messages = [*OPENAI[:1], {"role": "assistant", "content": "Which country?"}, {"role": "user", "content": "CH"}]
    tools = json.dumps([{"name": "search", "description": "d", "parameters": {"type": "object", "properties": {}}}])
    row = {"messages": messages, "chosen": OPENAI[1], "rejected": OPENAI[1] | {"content": "no"}, "tools": tools}
    registered(tmp_path, write_jsonl(tmp_path / "rows.jsonl", [row | {"system": "Be brief."}]))
    (text,) = decoded(tmp_path, "dpo")
    assert "Be brief." in text and "search" in text and "Which country?" in text


@pytest.mark.parametrize("ending", ["json", "txt", "csv", "folder"])
def test_llamafactory_loads_every_file_that_is_registered(tmp_path, ending):
    rows = [{"text": f"River {number} is long."} for number in range(30)]
    path = tmp_path / f"rows.{ending}"
    if ending == "json":  # one object a line
        write_jsonl(path, rows)
    elif ending == "folder":
        write_jsonl(path / "a.jsonl", rows[:2])
        write_jsonl(path / "b.jsonl", rows[2:])
    else:
        path.write_text("\n".join([*(["text"] if ending == "csv" else []), *(row["text"] for row in rows)]) + "\n")
    registered(tmp_path, path)
    texts = "".join(decoded(tmp_path, "pt", cutoff_len=8))  # joined and cut to blocks, without the last one
    assert sum(row["text"] in texts for row in rows) >= 28


def test_exported_conversational_pairs_are_loaded(tmp_path):
    path = write_jsonl(tmp_path / "trl.jsonl", [TRL | {"tools": [{"name": "search", "description": "d"}], "id": 7}])
    assert main(["export", str(path), str(tmp_path / "rows.jsonl"), "--to", "sharegpt"]) == 0
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert row["conversations"] == CHAT[:1] and row["chosen"] == {"from": "gpt", "value": "The Aare."}
    assert json.loads(row["tools"]) == [{"name": "search", "description": "d"}] and row["id"] == 7
    row["tools"] = None
    registered(tmp_path, write_jsonl(tmp_path / "rows.jsonl", [row]))
    (text,) = decoded(tmp_path, "dpo")
    assert "<|im_start|>user\nName a river.<|im_end|>\n<|im_start|>assistant\nThe Aare." in text


SHAREGPT = {"formatting": "sharegpt"}
SHARED_PAIR = {"formatting": "sharegpt", "ranking": True, "columns": {"messages": "m", "chosen": "c", "rejected": "r"}}
ROWS = [
    ({}, ALPACA, "sft", ""),
    ({}, ALPACA | {"output": None}, "sft", "'output' is null"),
    ({}, ALPACA | {"output": {"a": 1}}, "sft", "'output' is an object"),
    ({}, ALPACA | {"output": 5}, "sft", "'output' is a number"),
    ({}, ALPACA | {"input": 5}, "sft", "'input' is a number"),
    ({}, ALPACA | {"instruction": ["a"]}, "sft", "'instruction' is a list"),
    ({"columns": {"prompt": "p", "history": "h"}}, {"p": "x", "h": [["a", "b", "c"]]}, "pt", "'h' must be a list"),
    ({"columns": {"prompt": "p", "history": "h"}}, {"p": "x", "h": [["a", "b"]]}, "pt", ""),
    ({"columns": {"prompt": "p"}}, {"p": "x"}, "pt", ""),
    ({"columns": PAIR_COLUMNS, "ranking": True}, PAIR, "rm", ""),
    ({"columns": PAIR_COLUMNS, "ranking": True}, PAIR | {"rejected": None}, "rm", "'rejected' is null"),
    ({"columns": PAIR_COLUMNS, "ranking": True}, TRL, "rm", "'prompt' is a list"),
    ({"columns": {**ALPACA_COLUMNS, "kto_tag": "k"}}, ALPACA | {"k": True}, "kto", ""),
    ({"columns": {**ALPACA_COLUMNS, "kto_tag": "k"}}, ALPACA | {"k": 1}, "kto", "'k' is a number, not true or false"),
    ({"columns": ALPACA_COLUMNS}, ALPACA, "kto", "its entry names no column kto_tag"),
    ({"columns": {**ALPACA_COLUMNS, "kto_tag": "k"}}, ALPACA | {"k": True}, "sft", "only the stage kto reads"),
    (SHAREGPT, {"conversations": CHAT}, "sft", ""),
    (SHAREGPT, {"conversations": [{"from": "system", "value": "s"}, *CHAT]}, "sft", ""),
    (SHAREGPT, {"conversations": CHAT[:1]}, "sft", "its 1 messages do not end with an answer"),
    (SHAREGPT, {"conversations": [*CHAT, *CHAT[1:]]}, "sft", "message 3 has the role 'gpt', not human or observation"),
    (SHAREGPT, {"conversations": [{"from": "bot", "value": "x"}, *CHAT[1:]]}, "sft", "message 1 has the role 'bot'"),
    (SHAREGPT, {"conversations": OPENAI}, "sft", "message 1 of 'conversations' has the keys role, content"),
    (SHAREGPT, {"conversations": "x"}, "sft", "'conversations' is text"),
    (SHAREGPT, {"conversations": []}, "sft", "it has no messages"),
    (SHARED_PAIR, {"m": CHAT[:1], "c": CHAT[1], "r": CHAT[1]}, "rm", ""),
    (SHARED_PAIR, {"m": CHAT, "c": CHAT[1], "r": CHAT[1]}, "rm", "its 2 messages do not end with a question"),
    (SHARED_PAIR, {"m": CHAT[:1], "c": "Aare", "r": "no"}, "rm", "'c' is text"),
    (SHARED_PAIR, {"m": CHAT[:1], "c": [CHAT[1]], "r": [CHAT[1]]}, "rm", "'c' is a list"),
    (SHARED_PAIR, {"m": CHAT[:1], "c": {"from": "bot", "value": "x"}, "r": CHAT[1]}, "rm", "'c' has the role 'bot'"),
]


@pytest.mark.parametrize(("entry", "row", "stage", "reason"), ROWS)
def test_the_reason_is_given_for_just_those_rows_that_llamafactory_does_not_use(tmp_path, entry, row, stage, reason):
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.hparams import DataArguments

    (attr,) = get_dataset_list(["d"], {"d": entry | {"file_name": "d.json"}})
    try:
        converted = get_dataset_converter(attr.formatting, attr, DataArguments())(row)
        # As its processors ask.
        taken = len(converted["_prompt"]) % 2 == 1
        responses = {"sft": {1}, "rm": {2}, "kto": {2}, "pt": {0, 1, 2}}[stage]
        taken = taken and len(converted["_response"]) in responses
        if converted["_prompt"] and not isinstance(converted["_prompt"][0]["content"], str):
            taken = False
    except (KeyError, TypeError, ValueError):
        taken = False
    shape = shape_of(entry)
    found = "" if taken else type_fault(row, shape, stage != "pt") or drop_reason(row, shape, stage)
    assert taken == (not reason) and reason in found
    if taken:
        assert type_fault(row, shape, answered=stage != "pt") is None


def test_rows_of_any_form_are_described_or_refused(tmp_path):
    chance = random.Random(1)
    texts = [None, True, 5, "", "text", "user", "gpt", [], {}, ["a"], [["a", "b"]], "\ud83d"]
    names = [*PAIR, *ALPACA, "text", "messages", "conversations", "system", "history", "tools", "label", "x"]
    keys = ["role", "content", "from", "value"]

    def message():
        return {key: chance.choice(texts) for key in chance.sample(keys, chance.randint(0, 4))}

    def value():
        messages = [[message() for _ in range(chance.randint(0, 2))], CHAT[:1], OPENAI[:1], OPENAI]
        return chance.choice([chance.choice(texts), message(), CHAT[1], "text", "text", *messages])

    described = 0
    path = tmp_path / "rows.jsonl"
    for _ in range(600):
        rows = [{name: value() for name in chance.sample(names, chance.randint(1, 6))} for _ in range(2)]
        write_jsonl(path, [*rows, *chance.choices([[], [5]], [9, 1])[0]])
        with suppress(UserError):
            shape = shape_of(describe_dataset(str(path), tmp_path))
            described += 1
            assert all(
                isinstance(drop_reason(row, shape, stage), str) for row in rows for stage in ("sft", "rm", "kto")
            )
        for form in (preference_rows, sharegpt_rows):
            with suppress(UserError):
                viewed = find_pair_set(str(path), tmp_path)
                placed = placed_pairs(path, viewed.columns, faults := Faults())
                list(form(placed, viewed.columns, shape_of(viewed.entry).tags, faults))
    assert 20 < described < 580
