#!/usr/bin/env bash
# Sets up, and runs the checks, the docs build and all tests. Arguments go to pytest: bash scripts/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
bash scripts/docs.sh
.venv/bin/python -m pytest "$@"
