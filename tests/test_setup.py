"""scripts/setup.sh and the quickstart's small scripts, without an installation: what is refused, and how."""

import json
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from lf_longpo.errors import UserError
from lf_longpo.models import embedded
from lf_longpo.models.embedded import link_model


def set_up(tmp_path, **variables):
    """Runs a copy of the script in a folder of its own, where nothing is installed."""
    (tmp_path / "scripts").mkdir(exist_ok=True)
    (tmp_path / "scripts/setup.sh").write_text((REPOSITORY / "scripts/setup.sh").read_text())
    for name in ("pyproject.toml", "setup.py"):
        (tmp_path / name).write_text("")
    command = ["bash", str(tmp_path / "scripts/setup.sh")]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=120)


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return str(folder / name)


def test_a_python_that_is_missing_or_too_old_is_named(tmp_path):
    run = set_up(tmp_path, PYTHON="python9")
    assert run.returncode == 2 and "python9 was not found; install Python 3.11 or newer" in run.stderr
    old = program(tmp_path / "bin", "python3", 'if [ "$1" = -V ]; then echo Python 3.9.2; else exit 1; fi')
    run = set_up(tmp_path, PYTHON=old)
    assert run.returncode == 2 and "needs Python 3.11 or newer, this is Python 3.9.2" in run.stderr
    assert not (tmp_path / ".venv").exists()


def test_too_little_disk_space_is_found_before_anything_is_installed(tmp_path):
    program(tmp_path / "bin", "df", 'echo "Filesystem 1024-blocks Used Available"; echo "/dev/disk 9 9 4194304 9% /"')
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    run = set_up(tmp_path, PYTHON=sys.executable, PATH=path)
    assert run.returncode == 2 and "the installation takes 9 GB of disk, 4 GB are free" in run.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_failed_step_is_shown_whole_and_the_next_run_resumes(tmp_path):
    """With a Python whose virtual environments have a pip that fails."""
    pip = 'case "$*" in *--version*) exit 0;; *) echo "ERROR: no matching distribution"; exit 1;; esac'
    made = f"mkdir -p .venv/bin; printf '#!/bin/sh\\n%s\\n' '{pip}' > .venv/bin/python; chmod +x .venv/bin/python"
    python = program(tmp_path / "bin", "python", f'case "$*" in "-m venv"*) {made};; esac')
    for _ in range(2):
        run = set_up(tmp_path, PYTHON=python)
        assert run.returncode == 2 and "ERROR: no matching distribution" in run.stderr
        assert "this step failed: upgrading pip. Run the script again to resume it" in run.stderr
        assert "ERROR" not in run.stdout and not (tmp_path / ".venv/.lf-longpo-installed").exists()


def test_the_embedded_model_is_linked_whatever_libraries_print(tmp_path, monkeypatch, capsys):
    def noisy(name):
        print("[WARNING] Setting accelerator to CPU")
        return tmp_path / "cache" / name

    monkeypatch.setattr(embedded, "model_path", noisy)
    link = tmp_path / "models/smollm2-135m"
    link.parent.mkdir()
    link.symlink_to("[WARNING] broken by an earlier version")
    link_model("smollm2-135m", link)
    link_model("smollm2-135m", link)
    assert os.readlink(link) == str(tmp_path / "cache/smollm2-135m")
    assert [path.name for path in link.parent.iterdir()] == ["smollm2-135m"]


def test_a_folder_in_the_links_place_is_left_alone(tmp_path):
    (tmp_path / "smollm2-135m").mkdir()
    with pytest.raises(UserError, match="exists and is not a symbolic link; move it away"):
        link_model("smollm2-135m", tmp_path / "smollm2-135m")


def test_the_quickstart_ends_with_the_question_that_gained_most(tmp_path):
    questions = [{"id": f"q{n}", "question": f"Where is lamp {n}?", "answer": "tower"} for n in range(3)]
    scores = {"before": (1.0, 0.0, 0.0), "after": (1.0, 0.0, 1.0)}
    (tmp_path / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    for name, values in scores.items():
        (tmp_path / name).mkdir()
        rows = [{"id": f"q{n}", "prediction": f"{name} {n}", "sub_em": value} for n, value in enumerate(values)]
        (tmp_path / name / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folders = [str(tmp_path / name) for name in ("held_out.jsonl", "before", "after", "run", "adapter")]
    command = [sys.executable, str(REPOSITORY / "scripts/quickstart_end.py"), *folders]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 'Where is lamp 2? (tower)\n  before: "before 2"\n  after:  "after 2"' in shown
    assert f"Report:  {tmp_path}/run/report.html\nAdapter: {tmp_path}/adapter" in shown
