"""Prepared processes behave like those that `subprocess.Popen` starts."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from prepared import Prepared


def started(code, folder, *arguments, **options):
    return Prepared([sys.executable, "-c", code, *arguments], folder, **options)


@pytest.mark.slow
def test_a_process_has_its_own_arguments_environment_folder_and_output(tmp_path):
    code = "import os, sys; print(sys.argv, os.getcwd(), dict(os.environ)); print('no', file=sys.stderr); sys.exit(7)"
    run = started(code, tmp_path, "a", "b c", env={"ONLY": "this"})
    assert run.wait(60) == run.poll() == run.returncode == 7
    assert run.stdout.read() == f"{['-c', 'a', 'b c']} {REPOSITORY} { ({'ONLY': 'this'}) }\n"
    assert run.stderr.read() == "no\n"
    assert len(list(tmp_path.iterdir())) == 2  # what it wrote, where leaks.py finds it

    run = started("import os; os.system('echo yes'); raise ValueError('no')", tmp_path, merged=True)
    assert run.wait(60) == 1
    output = run.stdout.read()
    assert output.startswith("yes\n") and output.endswith("ValueError: no\n")


@pytest.mark.slow
def test_a_process_takes_signals(tmp_path):
    code = "import time\ntry:\n    print('here', flush=True); time.sleep(60)\nexcept KeyboardInterrupt:\n    exit(130)"
    for number, exit_code in ((signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGINT, 130)):
        run = started(code, tmp_path)
        while not run.stdout.read():
            assert run.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(0.01)
        assert os.getpgid(run.pid) == run.pid  # so that it can be killed with all that it started
        run.send_signal(number)
        assert run.wait(60) == exit_code
        run.send_signal(number)  # the process has ended


@pytest.mark.slow
def test_everything_is_imported_and_no_thread_was_there_to_be_lost(tmp_path):
    run = started("import sys, os; print('prepared_imports' in sys.modules, os.getppid())", tmp_path)
    assert run.wait(60) == 0
    imported, server = run.stdout.read().split()
    assert imported == "True"
    threads = {path.read_text().strip() for path in Path(f"/proc/{server}/task").glob("*/comm")}
    # pyarrow's allocator has a thread of its own and takes care of forks.
    assert len(threads - {"jemalloc_bg_thd"}) == 1, threads
