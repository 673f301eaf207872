"""`longpo config` and `longpo schema`: a file to start from, and what editors know about it."""

import json

import pytest
import yaml

from lf_longpo.cli import main
from lf_longpo.cli.settings_files import settings_commands


@pytest.mark.parametrize("command", settings_commands(by_method=True))
def test_all_settings_are_printed_as_yaml(command, capsys):
    assert main(["config", *command.split()]) == 0
    printed = capsys.readouterr().out
    assert "output" in printed and isinstance(yaml.safe_load(printed), dict)


@pytest.mark.parametrize("command", settings_commands())
def test_the_schema_is_json(command, capsys):
    assert main(["schema", *command.split()]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"].startswith("https://json-schema.org/")


def test_a_command_without_settings_is_an_error(capsys):
    assert main(["config", "evaluate", "longcat"]) == 2
    assert "evaluate longcat is not a command with a settings file; did you mean" in capsys.readouterr().err
    assert main(["schema", "train"]) == 2
    assert "use generate, " in capsys.readouterr().err
