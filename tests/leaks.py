"""Keys that stand in the environment of every test, and the search for them in all that the tests leave behind.

A session fails where a planted key is in a file under its temporary folder, in what a test or a process of its wrote to
stdout or stderr, in a log record or in an error.
"""

import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from stub import KEY

NAMES = ("STUB_KEY", "OPENAI_API_KEY", "ZHIPUAI_API_KEY", "ANTHROPIC_API_KEY", "DEEPSEEK_API_KEY", "LOCAL_API_KEY")


class Leaks:
    """A pytest plugin."""

    def __init__(self) -> None:
        self._outputs: list[str] = []
        self.found: list[str] = []

    def pytest_configure(self) -> None:
        os.environ |= dict.fromkeys(NAMES, KEY)
        plain = subprocess.Popen.communicate

        def communicate(process: subprocess.Popen, *args, **kwargs) -> tuple:
            told = plain(process, *args, **kwargs)
            self._outputs += [
                text if isinstance(text, str) else text.decode("utf-8", "replace") for text in told if text
            ]
            return told

        subprocess.Popen.communicate = communicate

    def pytest_runtest_logreport(self, report) -> None:
        texts = [*self._outputs, report.longreprtext, *(text for _, text in report.sections)]
        self._outputs.clear()
        if any(KEY in text for text in texts):
            self.found.append(f"{report.nodeid} ({report.when})")

    def pytest_sessionfinish(self, session) -> None:
        self.found += map(str, files_with_a_key(session.config._tmp_path_factory.getbasetemp()))
        if self.found:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter) -> None:
        for place in self.found:
            terminalreporter.write_line(f"LEAKED KEY: {place}", red=True)


def files_with_a_key(folder: Path) -> Iterator[Path]:
    """Files anywhere under a folder that hold it."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(KEY.encode()) >= 0:
                    yield path
