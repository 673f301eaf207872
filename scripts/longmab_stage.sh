#!/usr/bin/env bash
# Runs LongMab-PO up to a stage (probe, rollout or pairs) with the variables of the published scripts; finished work is not
# repeated. gen_probe.sh, rollout.sh and construct_po_data.sh call it.
#
#   MODEL_PATH=... INPUT=... bash scripts/longmab_stage.sh STAGE [key=value ...]
#
# CONFIG (yaml/llama3_longmab.yaml), MODEL_PATH, BASE_URL, INPUT, OUTPUT_DIR, CHUNK_SIZE, ROUNDS, TOP_K, START, END, SEED:
# if set, each overrides its key of CONFIG.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"

set_keys=(
    ${MODEL_PATH:+"policy.model=$MODEL_PATH" "tokenizer=$MODEL_PATH"}
    ${BASE_URL:+"policy.base_url=$BASE_URL"}
    ${INPUT:+"input=$INPUT"}
    ${OUTPUT_DIR:+"output_dir=$OUTPUT_DIR"}
    ${CHUNK_SIZE:+"longmab.chunk_size=$CHUNK_SIZE"}
    ${ROUNDS:+"longmab.rounds=$ROUNDS"}
    ${TOP_K:+"longmab.top_k=$TOP_K"}
    ${START:+"start=$START"}
    ${END:+"end=$END"}
    ${SEED:+"seed=$SEED"}
)
exec longpo generate "${CONFIG:-yaml/llama3_longmab.yaml}" --stage "$1" ${set_keys[@]+"${set_keys[@]}"} "${@:2}"
