"""A command that prints into a pipe without a reader ends quietly."""

import os
import subprocess
import sys

import pytest

from lf_longpo.errors import CLOSED_PIPE


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_ends_a_command_quietly(unbuffered):
    read, write = os.pipe()
    os.close(read)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "lf_longpo", "recipes"],
            stdout=write,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    finally:
        os.close(write)
    assert ended.stderr == b"" and ended.returncode == CLOSED_PIPE


def test_a_full_disk_is_still_an_error():
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "lf_longpo", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 2 and "No space left on device" in ended.stderr
