"""`--estimate` gives a time where a speed is set or was measured, and says where the speed comes from."""

import json
import shutil

import pytest
import yaml
from conftest import code_questions, run_settings, write_jsonl

from lf_longpo.cli import main
from lf_longpo.cli.run_output import duration
from lf_longpo.config import GenerateConfig
from lf_longpo.engine.progress_file import read_progress
from lf_longpo.models.usage import Speed, Usage
from lf_longpo.run_folder.measured_speed import measured_speed


@pytest.fixture
def settings(stub, tmp_path):
    return run_settings(stub, tmp_path, write_jsonl(tmp_path / "q.jsonl", code_questions(4)))


def estimated(settings, folder, capsys, *words):
    (folder / "c.yaml").write_text(yaml.safe_dump(settings))
    code = main(["generate", str(folder / "c.yaml"), *words])
    return code, capsys.readouterr()


def test_a_speed_that_is_set_gives_a_time_and_makes_no_calls(stub, settings, tmp_path, capsys):
    code, printed = estimated(settings, tmp_path, capsys, "--tokens-per-second", "8.5")
    assert code == 0 and stub.chats == 0
    assert "at 8 new tokens a second, the speed that you set; the time for prompts is part of it" in printed.out
    # 4 questions with a probe and 6 rounds, 0.3 * 1024 new tokens each: 28 * 307 tokens.
    assert duration(28 * 307 / 8.5) == "17 min" and "17 min" in printed.out


def test_prompts_take_time_where_their_speed_is_set():
    assert Speed(100.0, 2000.0, "").seconds(Usage(1, 4000, 300)) == pytest.approx(5.0)
    assert Speed(100.0, None, "").seconds(Usage(1, 4000, 300)) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tokens-per-second", "-5"], "argument --tokens-per-second: invalid number above 0 value: '-5'"),
        (["--prompt-tokens-per-second", "5"], "set --tokens-per-second, too"),
    ],
)
def test_a_speed_that_is_wrong_is_refused(settings, tmp_path, capsys, words, message):
    try:
        code, printed = estimated(settings, tmp_path, capsys, *words)
    except SystemExit as end:
        code, printed = end.code, capsys.readouterr()
    assert code == 2 and message in printed.err


@pytest.mark.slow
def test_a_run_with_the_same_models_gives_its_measured_speed(settings, tmp_path, capsys):
    assert "The time is unknown: set --tokens-per-second" in estimated(settings, tmp_path, capsys, "--estimate")[1].out
    assert main(["generate", str(tmp_path / "c.yaml")]) == 0
    capsys.readouterr()
    assert f"measured in {tmp_path / 'run'}" in " ".join(
        estimated(settings, tmp_path, capsys, "--estimate")[1].out.replace("\n", "").split()
    )
    speed = read_progress(tmp_path / "run")["speed"]["new_tokens_per_second"]
    other = settings | {"output_dir": str(tmp_path / "other")}
    found = measured_speed(GenerateConfig.model_validate(other))
    assert found.new == speed and found.source == f"measured in {tmp_path / 'run'}"
    other["policy"] = other["policy"] | {"base_url": "http://127.0.0.1:9/v1"}
    assert measured_speed(GenerateConfig.model_validate(other)) is None


@pytest.mark.slow
def test_the_latest_run_counts_and_the_own_folder_comes_first(settings, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    assert main(["generate", str(tmp_path / "c.yaml")]) == 0
    shutil.copytree(tmp_path / "run", tmp_path / "later", ignore=shutil.ignore_patterns(".*"))
    path = tmp_path / "later/progress.json"
    progress = json.loads(path.read_text())
    path.write_text(json.dumps(progress | {"speed": {"new_tokens_per_second": 7.0, "prompt_tokens_per_second": 1.0}}))
    third = GenerateConfig.model_validate(settings | {"output_dir": str(tmp_path / "third")})
    assert measured_speed(third).new == 7.0
    assert measured_speed(GenerateConfig.model_validate(settings)).new != 7.0


DURATIONS = {
    0.4: "0 s", 89: "89 s", 90: "2 min", 3599: "60 min", 7199: "2 h 0 min", 12_000: "3 h 20 min", 190_800: "2 d 5 h",
}  # fmt: skip


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_durations(seconds, text):
    assert duration(seconds) == text
