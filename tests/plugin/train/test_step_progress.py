"""The progress of a training in a terminal and in a pipe, and the log file for the libraries' output."""

import io
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from prepared import REPOSITORY, Prepared
from test_train import recipe  # noqa: F401  the fixture

from lf_longpo.plugin.train.console_output import Screen
from lf_longpo.plugin.train.step_progress import StepProgress
from lf_longpo.plugin.train.worker import log_of


class Terminal(io.StringIO):
    def isatty(self):
        return True


def play(out):
    """Three steps, of which the first and the last are logged."""
    watch = StepProgress(Screen(out))
    args = SimpleNamespace(train_batch_size=1, gradient_accumulation_steps=2, world_size=1)
    state = SimpleNamespace(global_step=0, max_steps=3)
    watch.on_train_begin(args, state, None)
    for step in (1, 2, 3):
        state.global_step, control = step, SimpleNamespace(should_log=step != 2)
        watch.on_substep_end(args, state, control)
        watch._shown -= 60  # a minute a step
        watch.on_step_end(args, state, control)
        if control.should_log:
            logs = {"loss": 0.5 / step, "rewards/margins": 0.25 * step, "rewards/accuracies": 1.0}
            watch.on_log(args, state, control, logs)
    watch.on_evaluate(args, state, control, {"eval_loss": 0.25, "eval_rewards/accuracies": 0.5})
    watch.on_train_end(args, state, control)
    return out.getvalue()


def test_a_pipe_has_a_line_a_step():
    first, *steps, evaluation, last = play(io.StringIO()).splitlines()
    assert first == "longpo train: training: 3 steps of 2 examples"
    assert steps[0].startswith("step 1/3: loss 0.5000, margin +0.250, accuracy 1.00, ")
    assert steps[1].startswith("step 2/3: ") and "loss" not in steps[1]
    assert steps[2].startswith("step 3/3: loss 0.1667, margin +0.750, accuracy 1.00, ")
    assert all(part in line for line in steps for part in (" s/step, ", " left, peak ", " GiB"))
    assert evaluation == "longpo train: evaluation at step 3: loss 0.2500, accuracy 0.50"
    assert last.startswith("longpo train: 3 steps done in 0:00:0") and last.endswith(" GiB")


def test_a_terminal_has_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    shown = play(Terminal())
    assert "step 3/3" in shown and "loss 0.1667, margin +0.750" in shown and "step 1/3: " not in shown


def test_silent_processes_print_nothing():
    watch = StepProgress(Screen(None))
    args = SimpleNamespace(train_batch_size=1, gradient_accumulation_steps=1, world_size=2)
    state, control = SimpleNamespace(global_step=1, max_steps=1), SimpleNamespace(should_log=True)
    watch.on_train_begin(args, state, control)
    watch.on_step_end(args, state, control)
    watch.on_log(args, state, control, {"loss": 1.0})
    watch.on_train_end(args, state, control)


CAUGHT = """
import os, sys
from pathlib import Path
from lf_longpo.plugin.train.console_output import diverted
with diverted() as output:
    print("from Python")
    os.system("echo from a child")
    output.keep(Path(sys.argv[1]), sys.argv[2] == "True")
    print("later", file=sys.stderr)
    output.screen.note("for people")
print("after")
"""


@pytest.mark.parametrize("verbose", [False, True])
def test_output_goes_to_the_log_also_from_children_and_early(tmp_path, verbose):
    path = tmp_path / "folder/train.log"
    command = [sys.executable, "-c", CAUGHT, str(path), str(verbose)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    log = path.read_text().splitlines()
    assert sorted(log) == ["from Python", "from a child", "later"] and log[-1] == "later"
    shown = ["longpo train: for people", "after", *(["later"] if verbose else [])]
    assert sorted(run.stdout.splitlines()) == sorted(shown) and run.stderr == ""


def test_a_fault_before_the_log_is_kept_leaves_no_file(tmp_path):
    command = [
        sys.executable,
        "-c",
        CAUGHT.replace("    output.keep", "    raise ValueError('early')\n    output.keep"),
    ]
    run = subprocess.run([*command, str(tmp_path / "train.log"), "False"], capture_output=True, text=True)
    assert list(tmp_path.iterdir()) == [] and run.stdout == "" and "ValueError: early" in run.stderr


@pytest.mark.slow
def test_a_training_shows_its_steps_and_keeps_the_log(recipe, tmp_path):  # noqa: F811
    settings = recipe("glm4", max_steps=3, output_dir=str(tmp_path / "out"))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "lf_longpo", "train", str(tmp_path / "recipe.yaml")]
    process = Prepared(command, tmp_path)
    assert process.wait(timeout=300) == 0, process.stderr.read()
    lines = process.stdout.read().splitlines()
    assert lines[0] == "longpo train: loading LLaMA-Factory"
    assert f"longpo train: the whole log: {log_of(settings)}" in lines
    assert f"longpo train: loading the model: {settings['model_name_or_path']}" in lines
    assert [line.split(":")[0] for line in lines if line.startswith("step ")] == ["step 1/3", "step 2/3", "step 3/3"]
    assert len(lines) < 15 and process.stderr.read() == ""
    assert "train_samples_per_second" in log_of(settings).read_text()


@pytest.mark.slow
def test_a_training_that_fails_says_why_in_one_line(recipe, tmp_path):  # noqa: F811
    """Also under torchrun, where the traceback goes to the log."""
    settings = recipe("glm4", max_steps=3, output_dir=str(tmp_path / "out"), lora_target="no_such_layer")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "lf_longpo", "train", str(tmp_path / "recipe.yaml")]
    for environment in ({}, {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "1"}):
        process = Prepared(command, tmp_path, os.environ | environment)
        assert process.wait(timeout=300) == 1
        error, log = process.stderr.read().splitlines()
        assert error.startswith("error: ValueError: Target modules {'no_such_layer'} not found")
        assert log == f"The whole log: {log_of(settings)}"
        assert "Traceback" in log_of(settings).read_text()
