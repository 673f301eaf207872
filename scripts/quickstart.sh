#!/usr/bin/env bash
# From nothing to a LoRA adapter trained on long-context preference pairs, and its score before and after, on a CPU:
# demo questions -> LongMab-PO pairs -> registered data set -> DPO with LLaMA-Factory -> held-out evaluation.
# Run again, it keeps what is there; remove runs/ and saves/ to begin anew.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=1

adapter=saves/smollm2_dpo
step() { printf '\n[quickstart] %s\n' "$*"; }

step "1/5 demo questions -> runs/demo/train.jsonl, runs/demo/held_out.jsonl"
[ -f runs/demo/held_out.jsonl ] || python -m lf_longpo.synthesis.demo runs/demo --train 20 --held-out 8

step "2/5 held-out score before training -> runs/smollm2_before/results.json"
longpo evaluate longqa yaml/smollm2_longqa.yaml output_dir=runs/smollm2_before

step "3/5 LongMab-PO pairs -> runs/smollm2_longmab, dataset_info/smollm2_longmab_dpo.jsonl"
longpo generate yaml/smollm2_longmab.yaml

step "4/5 DPO with LLaMA-Factory -> $adapter"
if [ -f "$adapter/adapter_model.safetensors" ]; then
    echo "$adapter is there; remove it to train again"
else
    rm -rf runs/smollm2_after  # scores of an earlier adapter
    llamafactory-cli train yaml/smollm2_dpo.yaml
fi

step "5/5 held-out score after training -> runs/smollm2_after/results.json"
longpo evaluate longqa yaml/smollm2_longqa.yaml output_dir=runs/smollm2_after model.adapter="$adapter" \
    baseline=runs/smollm2_before
