#!/usr/bin/env bash
# Starts vLLM's server for a section of a generation config, with the address, concurrency and window that it names.
#
#   bash scripts/serve_vllm.sh yaml/llama3_longmab.yaml                             # for its policy
#   bash scripts/serve_vllm.sh yaml/llama3_longreward.yaml judge --tensor-parallel-size 4      # further words go to vLLM
#
# PYTHON names the Python that has vLLM (default: .venv/bin/python; pip install -e '.[vllm]').
set -euo pipefail
config=$1 section=${2:-policy}
root=$(dirname "$0")/..
told=$("$root/.venv/bin/python" -m lf_longpo.models.serving "$config" "$section")
mapfile -t arguments <<< "$told"
exec "${PYTHON:-$root/.venv/bin/python}" -m vllm.entrypoints.openai.api_server "${arguments[@]}" "${@:3}"
