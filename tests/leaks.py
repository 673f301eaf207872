"""Keys that stand in the environment of every test, and the search for them in all that the tests leave behind.

A session fails where a planted key is in a file under its temporary folder, in what a test or one of its processes
wrote to stdout or stderr, in a log record or in an error. Where workers run the tests (pytest-xdist), each reports what
it found; their temporary folders are below the session's.
"""

import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from stub import KEY

NAMES = ("STUB_KEY", "OPENAI_API_KEY", "ZHIPUAI_API_KEY", "ANTHROPIC_API_KEY", "DEEPSEEK_API_KEY", "LOCAL_API_KEY")

_REPORTED = "leaked_keys"


class Leaks:
    """A pytest plugin."""

    def __init__(self) -> None:
        self._outputs: list[str] = []
        self.found: list[str] = []

    def pytest_configure(self) -> None:
        os.environ |= dict.fromkeys(NAMES, KEY)
        plain = subprocess.Popen.communicate

        def communicate(process: subprocess.Popen, *args, **kwargs) -> tuple:
            outputs = plain(process, *args, **kwargs)
            self._outputs += [
                text if isinstance(text, str) else text.decode("utf-8", "replace") for text in outputs if text
            ]
            return outputs

        subprocess.Popen.communicate = communicate

    def pytest_runtest_logreport(self, report) -> None:
        texts = [*self._outputs, report.longreprtext, *(text for _, text in report.sections)]
        self._outputs.clear()
        if any(KEY in text for text in texts):
            self.found.append(f"{report.nodeid} ({report.when})")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:
        """A worker has ended."""
        self.found += getattr(node, "workeroutput", {}).get(_REPORTED, [])

    def pytest_sessionfinish(self, session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[_REPORTED] = self.found
            return
        self.found += map(str, files_with_a_key(session.config._tmp_path_factory.getbasetemp()))
        if self.found:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter) -> None:
        for where in dict.fromkeys(self.found):  # a worker's reports also reach this session
            terminalreporter.write_line(f"LEAKED KEY: {where}", red=True)


def files_with_a_key(folder: Path) -> Iterator[Path]:
    """Files anywhere under a folder that hold it."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(KEY.encode()) >= 0:
                    yield path
