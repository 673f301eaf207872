"""Python commands in processes that have everything imported when they start.

A command that imports LLaMA-Factory needs seven to ten seconds before its first own line. Here a server imports once
(Python's own `forkserver`; prepared_imports.py says what) and forks a process for each command. Such a process has its
own pid, signals, environment, folder and exit code, as one that `subprocess.Popen` starts. It differs in what it
reads while importing (LLAMAFACTORY_VERBOSITY, HF_HUB_OFFLINE) and in its handlers of `atexit`, which do not run.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["prepared_imports"])


class Prepared:
    """A command, started: what tests need of `subprocess.Popen`.

    stdout and stderr are files in a folder of the test, where tests/leaks.py searches them; they can be read at any
    time.

    Args:
        command: `[sys.executable, "-m", module, ...]` or `[sys.executable, "-c", code, ...]`.
        folder: where the files of its output go.
        env: its whole environment; default: this process's.
        merged: whether stderr goes to stdout.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, merged: bool = False
    ) -> None:
        assert command[0] == sys.executable and command[1] in ("-c", "-m")
        outputs = [tempfile.mkstemp(f".{name}", dir=folder) for name in (["out"] if merged else ["out", "err"])]
        for number, _ in outputs:
            os.close(number)
        paths = [path for _, path in outputs]
        self.args = command
        self.stdout, self.stderr = open(paths[0]), open(paths[-1])  # noqa: SIM115 as subprocess.PIPE would
        self._process = _context.Process(target=_run, args=(command[1:], dict(env or os.environ), paths), daemon=True)
        with pytest.MonkeyPatch.context() as patch:  # the server's path, which it reads when it starts
            patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (TESTS, REPOSITORY))))
            self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; minus the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()


def torchrun(processes: int, module: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs a module in so many processes of this machine, which torchrun forks once more."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*command, "--start-method", "fork", "--run-path", find_spec(module).origin, *arguments]


def _run(command: Sequence[str], environment: Mapping[str, str], paths: Sequence[str]) -> None:
    """In the forked process: becomes what `python *command` would be."""
    multiprocessing.current_process().daemon = False  # it may start processes of its own
    os.setsid()
    os.chdir(REPOSITORY)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((1, paths[0]), (2, paths[-1])):
        number = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(number, stream)
        os.close(number)
    if threads := environment.get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))
    kind, what, *arguments = command
    sys.path[0:0] = [str(REPOSITORY)]
    sys.argv[:] = [what if kind == "-m" else "-c", *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})
