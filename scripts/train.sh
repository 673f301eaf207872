#!/usr/bin/env bash
# Trains a recipe of yaml/ with longpo train on all visible GPUs. llama3_dpo.sh, qwen2_dpo.sh and glm4_dpo.sh call it.
#
#   CUDA_VISIBLE_DEVICES=0,1 bash scripts/train.sh RECIPE [key=value ...]
#
# NPROC_PER_NODE (all visible GPUs), NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT are LLaMA-Factory's. If set, MODEL_PATH,
# DATASET and OUTPUT_DIR override the recipe's model_name_or_path, dataset and output_dir.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .venv/bin ] && export PATH="$PWD/.venv/bin:$PATH"

set_keys=(
    ${MODEL_PATH:+"model_name_or_path=$MODEL_PATH"}
    ${DATASET:+"dataset=$DATASET"}
    ${OUTPUT_DIR:+"output_dir=$OUTPUT_DIR"}
)
export FORCE_TORCHRUN=1  # DeepSpeed needs it on one GPU, too
exec longpo train "yaml/$1.yaml" ${set_keys[@]+"${set_keys[@]}"} "${@:2}"
