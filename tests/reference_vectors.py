"""The input/output vectors of the published code."""

import json

import pytest
from conftest import REFERENCE

needs_vectors = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference vectors are not next to the checkout")


def vectors(name):
    return [json.loads(line) for line in (REFERENCE / name).read_text(encoding="utf-8").splitlines()]
