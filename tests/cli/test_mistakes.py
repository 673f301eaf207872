"""Typical mistakes on the command line: one line with the fix, exit code 2, and nothing is written."""

import ctypes
import os
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
        ("evaluate xyz", "unknown command xyz; use longqa, longbench, longbench-chat, winrate, compare"),
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
