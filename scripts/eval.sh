#!/usr/bin/env bash
# EM, F1 and SubEM of a served model on questions over long contexts, as in LongMab-PO.
#
#   MODEL_PATH=... INPUT=held_out.jsonl bash scripts/eval.sh [key=value ...]
#
# MODEL_PATH is the model's name on the server at BASE_URL (http://127.0.0.1:8000/v1) and names the tokenizer. OUTPUT_DIR is
# runs/eval by default.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"

: "${MODEL_PATH:?set MODEL_PATH to the name of the model}" "${INPUT:?set INPUT to a file of questions}"
exec longpo evaluate longqa yaml/longqa.yaml model.provider=local \
    "model.base_url=${BASE_URL:-http://127.0.0.1:8000/v1}" "model.model=$MODEL_PATH" "tokenizer=$MODEL_PATH" \
    "input=$INPUT" "output_dir=${OUTPUT_DIR:-runs/eval}" "$@"
