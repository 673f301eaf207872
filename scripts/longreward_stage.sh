#!/usr/bin/env bash
# Runs LongReward up to a stage (sample, extract, score or pairs); finished work is not repeated. sample_responses.sh,
# get_chunk_info.sh, get_score.sh and get_pairs.sh call it.
#
#   MODEL_PATH=... JUDGE_MODEL=... INPUT=... bash scripts/longreward_stage.sh STAGE [key=value ...]
#
# CONFIG (yaml/llama3_longreward.yaml), MODEL_PATH, BASE_URL, JUDGE_PROVIDER, JUDGE_MODEL, INPUT, OUTPUT_DIR, CHUNK_SIZE,
# NUM_SAMPLES, START, END, SEED: if set, each overrides its key of CONFIG. OUTPUT_DIR may be a folder of the
# published scripts; the run resumes from its files.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"

set_keys=(
    ${MODEL_PATH:+"policy.model=$MODEL_PATH" "tokenizer=$MODEL_PATH"}
    ${BASE_URL:+"policy.base_url=$BASE_URL"}
    ${JUDGE_PROVIDER:+"judge.provider=$JUDGE_PROVIDER"}
    ${JUDGE_MODEL:+"judge.model=$JUDGE_MODEL"}
    ${INPUT:+"input=$INPUT"}
    ${OUTPUT_DIR:+"output_dir=$OUTPUT_DIR"}
    ${CHUNK_SIZE:+"longreward.chunk_size=$CHUNK_SIZE"}
    ${NUM_SAMPLES:+"longreward.num_samples=$NUM_SAMPLES"}
    ${START:+"start=$START"}
    ${END:+"end=$END"}
    ${SEED:+"seed=$SEED"}
)
exec longpo generate "${CONFIG:-yaml/llama3_longreward.yaml}" --stage "$1" ${set_keys[@]+"${set_keys[@]}"} "${@:2}"
