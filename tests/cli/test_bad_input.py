"""Every command reports all bad rows of its input with file and line, before any call, and writes nothing."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import REPOSITORY, code_questions, run_settings, write_jsonl
from stub import MODEL

from lf_longpo.cli import main

HALF = "a note \ud83d here"


def responses(number):
    return [{"idx": f"q{n}-0", "query": f"Q{n}?", "answer": f"A{n}", "context": f"Text {n}."} for n in range(number)]


def hops(number):
    paragraphs = [{"title": f"T{n}", "paragraph_text": f"Text {n}.", "is_supporting": n == 1} for n in range(3)]
    return [{"id": f"m{n}", "question": f"Q{n}?", "answer": "A", "paragraphs": paragraphs} for n in range(number)]


def articles(number):
    return [{"id": f"d{n}", "title": f"T{n}", "text": f"Text {n}."} for n in range(number)]


def pairs(number):
    return [{"id": f"p{n}", "prompt": f"P{n}", "chosen": "good", "rejected": "bad"} for n in range(number)]


@pytest.fixture
def commands(stub, tmp_path):
    """Arguments of each command that reads `path`, by its name."""
    server = {"base_url": stub.base_url, "api_key_env": "STUB_KEY"}
    model = {"backend": "openai", "model": MODEL, **server}
    path, out = tmp_path / "in.jsonl", tmp_path / "out"
    longmab = run_settings(stub, out, path)
    longreward = {key: value for key, value in longmab.items() if key != "longmab"}
    longreward |= {"method": "longreward", "judge": model}
    longqa = {"input": str(path), "output_dir": str(out / "eval"), "model": model, "tokenizer": "smollm2-135m"}
    made = {"output": str(out / "q.jsonl"), "tokenizer": "smollm2-135m"}
    score = {"judge": model, "embedder": {"backend": "openai", "model": "e", **server}, "tokenizer": "smollm2-135m"}
    written = {
        "generate": longmab,
        "longreward": longreward,
        "longqa": longqa,
        "winrate": longqa | {"against": model, "judge": model},
        "mix": made | {"inputs": [str(path)]},
        "multihop": made | {"input": str(path)},
        "corpus": made | {"input": str(write_jsonl(tmp_path / "hops.jsonl", hops(3))), "corpus": str(path)},
        "self-instruct": {
            "input": str(path), "output_dir": str(out / "run"), "dataset_dir": str(out), "dataset_name": "d",
            "model": model, "tokenizer": "smollm2-135m", "min_tokens": 0, "max_tokens": 64,
        },
        "score": score | {"output_dir": str(out / "score")},
    }  # fmt: skip
    for name, config in written.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    files = {name: str(tmp_path / f"{name}.yaml") for name in written}
    contexts = [{"idx": f"q{n}", "query": f"Q{n}?", "context": f"Text {n}."} for n in range(3)]
    contexts = str(write_jsonl(tmp_path / "contexts.jsonl", contexts))
    given = str(write_jsonl(tmp_path / "given.jsonl", responses(3)))
    return {
        "generate": (code_questions, ["generate", files["generate"]]),
        "generate --estimate": (code_questions, ["generate", files["generate"], "--estimate"]),
        "generate longreward": (code_questions, ["generate", files["longreward"]]),
        "evaluate longqa": (code_questions, ["evaluate", "longqa", files["longqa"]]),
        "evaluate longqa --estimate": (code_questions, ["evaluate", "longqa", files["longqa"], "--estimate"]),
        "evaluate winrate": (code_questions, ["evaluate", "winrate", files["winrate"]]),
        "score": (responses, ["score", str(path), "--config", files["score"]]),
        "score responses": (responses, ["score", str(path), "--config", files["score"], f"contexts={contexts}"]),
        "score contexts": (code_questions, ["score", given, "--config", files["score"], f"contexts={path}"]),
        "synthesize mix": (code_questions, ["synthesize", "mix", files["mix"]]),
        "synthesize multihop": (hops, ["synthesize", "multihop", files["multihop"]]),
        "synthesize multihop corpus": (articles, ["synthesize", "multihop", files["corpus"]]),
        "synthesize self-instruct": (articles, ["synthesize", "self-instruct", files["self-instruct"]]),
        "register": (pairs, ["register", str(path), "--name", "x", "--dataset-dir", str(out)]),
        "export": (pairs, ["export", str(path), str(out / "o.jsonl"), "--dataset-dir", str(out)]),
        "export parquet": (pairs, ["export", str(path), str(out / "o.parquet"), "--dataset-dir", str(out)]),
        "export trl-dpo": (pairs, ["export", str(path), str(out / "o.jsonl"), "--to", "trl-dpo"]),
    }


COMMANDS = [
    "generate", "generate --estimate", "generate longreward", "evaluate longqa", "evaluate longqa --estimate",
    "evaluate winrate", "score", "score responses", "score contexts", "synthesize mix", "synthesize multihop",
    "synthesize multihop corpus", "synthesize self-instruct", "register", "export", "export parquet", "export trl-dpo",
]  # fmt: skip


def refused(arguments, stub, tmp_path, capsys):
    """What a command says that refuses its input."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and not stub.chats and not stub.embedded_texts
    written = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [name for name in written if not name.endswith((".lock", ".sqlite"))], written
    return said


@pytest.mark.parametrize("name", COMMANDS)
def test_half_characters_in_any_field_are_refused_with_file_and_line(commands, stub, tmp_path, capsys, name):
    make, arguments = commands[name]
    rows = make(3)
    fields = [field for field, value in rows[0].items() if isinstance(value, str)]
    for field in fields:
        bad = [dict(row) for row in rows]
        bad[1][field] = HALF
        write_jsonl(tmp_path / "in.jsonl", bad)
        said = refused(arguments, stub, tmp_path, capsys)
        assert f"{tmp_path}/in.jsonl, line 2: the field {field} holds \\ud83d, half of a character" in said, said


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "register"])
def test_all_bad_rows_are_reported_at_once(commands, stub, tmp_path, capsys, name):
    make, arguments = commands[name]
    rows = make(14)
    for row in rows[1:]:
        row["note"] = HALF
    lines = [json.dumps(row) for row in rows]
    lines[3] = lines[3][:-1]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    said = refused(arguments, stub, tmp_path, capsys)
    assert re.search(r"error: 13 (rows|pairs|documents) cannot be used:\n", said), said
    assert re.findall(r"in\.jsonl, line (\d+)", said)[:10] == [str(number) for number in range(2, 12)]
    assert "line 4 is not JSON" in said and "... and 3 more" in said


def test_what_a_terminal_cannot_show_is_written_as_an_escape(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", pairs(1))
    command = [
        sys.executable,
        "-m",
        "lf_longpo",
        "register",
        str(path),
        "--name",
        "河",
        "--dataset-dir",
        str(tmp_path),
    ]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "registered \\u6cb3" in done.stdout, done.stderr
    assert "河" in json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8"))
