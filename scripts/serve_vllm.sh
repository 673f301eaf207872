#!/usr/bin/env bash
# Starts vLLM's server for a model of a generation config, with its address, concurrency and window.
#
#   bash scripts/serve_vllm.sh yaml/llama3_longmab.yaml                             # for its policy
#   bash scripts/serve_vllm.sh yaml/llama3_longreward.yaml judge --tensor-parallel-size 4      # more arguments go to vLLM
#
# PYTHON is the Python with vLLM (default: .venv/bin/python; pip install -e '.[vllm]').
set -euo pipefail
: "${1:?usage: bash scripts/serve_vllm.sh CONFIG [policy|judge] [vLLM's own arguments]}"
python=$(dirname "$0")/../.venv/bin/python
exec "$python" -m lf_longpo.models.serving "${PYTHON:-$python}" "$@"
