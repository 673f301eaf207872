#!/usr/bin/env bash
# Starts vLLM's server for a section of a generation config, with the address, concurrency and window that it names.
#
#   bash scripts/serve_vllm.sh yaml/llama3_longmab.yaml                             # for its policy
#   bash scripts/serve_vllm.sh yaml/llama3_longreward.yaml judge --tensor-parallel-size 4      # further words go to vLLM
#
# PYTHON names the Python that has vLLM (default: .venv/bin/python; pip install -e '.[vllm]').
set -euo pipefail
: "${1:?usage: bash scripts/serve_vllm.sh CONFIG [policy|judge] [vLLM's own arguments]}"
python=$(dirname "$0")/../.venv/bin/python
exec "$python" -m lf_longpo.models.serving "${PYTHON:-$python}" "$@"
