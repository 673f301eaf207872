#!/usr/bin/env bash
# Builds the docs site into build/site, in strict mode: a broken link, a broken anchor or a page without a place in the
# navigation ends the build with an error. Installs the extra `docs` if it is missing.
#
#   bash scripts/docs.sh            PYTHON=.venv/bin/python bash scripts/docs.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
"$python" -c 'import material, mkdocstrings_handlers.python' 2>/dev/null ||
    "$python" -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
# Without --quiet, which would hide warnings from the strict mode, too.
NO_MKDOCS_2_WARNING=1 PYTHONPATH=. "$python" -m mkdocs build --clean
echo "[docs] build/site/index.html"
