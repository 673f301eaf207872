"""Typical mistakes on the command line: one line with the fix, exit code 2, and nothing is written."""

import ctypes
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY, code_questions, run_settings, write_jsonl

from lf_longpo.cli import main
from lf_longpo.config.yaml_text import dump_yaml


def refused(arguments, capsys):
    """The one line that a command prints for arguments it refuses."""
    try:
        exit_code = main(arguments)
    except SystemExit as end:  # by argparse
        exit_code = end.code
    out, err = capsys.readouterr()
    assert exit_code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    return err.removeprefix("error: ").strip()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("genrate c.yaml", "unknown command genrate; did you mean generate?"),
        ("evaluate longbench_chat c.yaml", "unknown command longbench_chat; did you mean longbench-chat?"),
        ("synthesize needles c.yaml", "unknown command needles; did you mean needle?"),
        ("evaluate xyz", "unknown command xyz; use longqa, longbench, longbench-chat, winrate, judge, compare"),
        ("generate c.yaml --rounds 3", "option --rounds; settings have the form key=value: write longmab.rounds=3"),
        ("generate c.yaml seed=1 --rounds=3", "write longmab.rounds=3"),
        ("generate --longmab.rounds 3 c.yaml", "write longmab.rounds=VALUE"),
        ("generate c.yaml --max-cost 3", "write max_cost=3"),
        ("evaluate longbench c.yaml --base-url http://h/v1", "write model.base_url=http://h/v1"),
        ("train r.yaml --learning_rate 1e-5", "write learning_rate=1e-5"),
        ("generate c.yaml --estimat3", "unknown option --estimat3; did you mean --estimate?"),
        ("export run o.jsonl --formt kto", "unknown option --formt; run `longpo export --help`"),
        ("export run o.jsonl more", "unknown argument more; run `longpo export --help`"),
        ("export run o.jsonl --to trldpo", "--to: unknown value trldpo; did you mean trl-dpo?"),
        ("generate", "the following arguments are required: config; run `longpo generate --help`"),
        ("generate nowhere.yaml", "cannot read nowhere.yaml: No such file or directory; check the path"),
        ("train nowhere.yaml", "there is no recipe nowhere.yaml; name a .yaml file"),
    ],
)  # fmt: skip
def test_commands_and_options(line, message, capsys):
    assert refused(line.split(), capsys).endswith(message)


@pytest.mark.parametrize(
    "command", ["generate", "train", "check", "evaluate longqa", "synthesize mix", "score r.jsonl --config"]
)
def test_a_tab_in_a_file(command, tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text("seed: 1\nlongmab:\n\trounds: 3\n")
    expected = f"{path} is not YAML: line 3: a tab cannot indent a line; use spaces"
    assert refused([*command.split(), str(path)], capsys) == expected


@pytest.mark.parametrize(
    ("command", "name", "right"),
    [
        ("generate", "llama3_dpo", "longpo train"),
        ("generate", "llama3_longreward_sft", "longpo train"),
        ("train", "llama3_longmab", "longpo generate"),
        ("check", "llama3_longreward", "longpo generate"),
        ("evaluate longqa", "llama3_longmab", "longpo generate"),
    ],
)
def test_a_file_of_another_command(command, name, right, capsys):
    path = str(REPOSITORY / f"yaml/{name}.yaml")
    message = refused([*command.split(), path], capsys)
    assert message.startswith(f"{path} is not a file for `longpo {command}`; run `{right} {path}`")


# Runs the words of each line of stdin, and prints what was imported.
RUN_EACH = """
import json, sys
from lf_longpo.cli import main
for line in sys.stdin:
    assert main(json.loads(line)) == 2
print(*sorted({"torch", "transformers", "llamafactory", "vllm", "sentence_transformers"} & set(sys.modules)))
"""


def mistakes(stub, tmp_path):
    """Settings with one mistake about a server or a name, and the end of the message."""
    url = stub.base_url
    return {
        "policy.api_key_env=WRONG_KEY": f"{url} rejects the key in WRONG_KEY (401); set that variable to a valid key",
        "policy.api_key_env=NO_KEY": f"{url} needs a key (401) and the environment variable NO_KEY is not set; put the "
        "key there or set api_key_env to the variable that holds it",
        "policy.base_url=https://api.openai.com/v1 policy.api_key_env=NO_KEY": "the environment variable NO_KEY is not "
        "set; put the API key there, or set base_url to your own server",
        "policy.base_url=http://127.0.0.1:9/v1": "start the server or fix base_url",
        f"policy.base_url={url[:-3]}": f"{url[:-3]} answers 404, and {url} has the API; add /v1: set base_url to {url}",
        "policy.model=gpt-5": f"{url} does not serve 'gpt-5'; it serves stub-model",
        "embedder.base_url=http://127.0.0.1:9/v1": "start the server or fix embedder.base_url",
        f"embedder.base_url={url[:-2]}": f"add /v1: set embedder.base_url to {url}",
        "embedder.api_key_env=WRONG_KEY": "rejects the key in WRONG_KEY (401); set that variable to a valid key",
        "embedder={provider: openai}": "set embedder.model (OpenAI: text-embedding-3-small, Zhipu: embedding-3)",
        "embedder={model: ./bge}": "./bge does not exist; set embedder.model to a model folder or a hub name",
        "policy={backend: transformers, model: ./llama}": "policy.model: ./llama does not exist; set policy.model to a "
        "model folder or a hub name",
        "pairs.template=lama3": "pairs.template: LLaMA-Factory has no template 'lama3'; did you mean llama3 or mllama "
        "or llama4?",
        f"output_dir={tmp_path}/c.yaml/run": "is a file; name another folder",
    }


@pytest.mark.slow
def test_mistakes_about_servers_and_names_are_found_before_heavy_imports(stub, tmp_path):
    questions = write_jsonl(tmp_path / "q.jsonl", code_questions(1))
    path = tmp_path / "c.yaml"
    path.write_text(dump_yaml(run_settings(stub, tmp_path / "made", questions)))
    found = mistakes(stub, tmp_path)
    words = [json.dumps(["generate", str(path), *re.split(r" (?=policy)", settings)]) + "\n" for settings in found]
    environment = {**os.environ, "WRONG_KEY": "wrong"}
    done = subprocess.run(
        [sys.executable, "-c", RUN_EACH], input="".join(words), cwd=REPOSITORY, env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line != "loading ..."]
    assert len(lines) == len(found), done.stderr
    for line, end in zip(lines, found.values(), strict=True):
        assert line.startswith("error: ") and line.endswith(end), (line, end)
    assert done.stdout.split() == []
    assert not stub.chats and not (tmp_path / "made").exists()


def test_a_training_template_that_does_not_exist(capsys):
    message = refused(["train", str(REPOSITORY / "yaml/llama3_dpo.yaml"), "template=lama3"], capsys)
    assert message == "template: LLaMA-Factory has no template 'lama3'; did you mean llama3 or mllama or llama4?"


def without_override():
    """In a process of root: permissions count for it as for everybody, once it runs a program."""
    drop_capability, override = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    assert ctypes.CDLL(None).prctl(drop_capability, override, 0, 0, 0) == 0


@pytest.mark.parametrize(("key", "name"), [("output_dir", "output_dir"), ("dataset_dir", "the data folder")])
def test_a_folder_without_permission(key, name, stub, tmp_path):
    questions = write_jsonl(tmp_path / "q.jsonl", code_questions(1))
    settings = run_settings(stub, tmp_path / "open", questions) | {key: str(tmp_path / "locked/run")}
    (tmp_path / "c.yaml").write_text(dump_yaml(settings))
    (tmp_path / "locked").mkdir(mode=0o555)
    done = subprocess.run(
        [sys.executable, "-m", "lf_longpo", "generate", str(tmp_path / "c.yaml")],
        cwd=REPOSITORY,
        preexec_fn=without_override if os.getuid() == 0 else None,
        capture_output=True,
        text=True,
    )
    fix = f"{name} {tmp_path}/locked/run cannot be written; name another folder or change its permissions"
    assert done.stderr.splitlines()[-1] == f"error: {fix}" and done.returncode == 2
    assert not stub.chats and not list((tmp_path / "locked").iterdir()) and not (tmp_path / "open").exists()


def test_the_command_line_is_a_module_too():
    for module in ("lf_longpo", "lf_longpo.cli"):
        command = [sys.executable, "-m", module, "--version"]
        assert subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY).stdout.startswith("longpo ")


def test_settings_may_follow_options(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text("")
    for words in (["seed=x", "--estimate"], ["--estimate", "seed=x"]):
        path.write_text("method: longmab\n")
        assert main(["generate", str(path), *words]) == 2
        assert "seed: Input should be a valid integer" in capsys.readouterr().err
