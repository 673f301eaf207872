#!/usr/bin/env bash
# From nothing to a LoRA adapter trained on long-context preference pairs, and its score before and after, on a CPU:
# demo questions -> pairs -> registered data set -> DPO with LLaMA-Factory -> held-out evaluation.
#
#   bash scripts/quickstart.sh                        LongMab-PO pairs (the default)
#   bash scripts/quickstart.sh --method longreward    LongReward pairs
#
# Run again, it keeps what is there; remove runs/ and saves/ to begin anew.
set -euo pipefail
cd "$(dirname "$0")/.."

method=longmab
[ "${1:-}" = --method ] && method=${2:-}
case "$#:$method" in
    0:longmab | 2:longmab) demo=runs/demo size="--train 20" ;;
    # Each question costs five responses, which read the whole document, and their judging.
    2:longreward) demo=runs/demo_longreward size="--train 6 --people 10 20" ;;
    *) echo "usage: bash scripts/quickstart.sh [--method longmab|longreward]" >&2; exit 2 ;;
esac

bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=1

adapter=saves/smollm2_${method}_dpo before=runs/smollm2_${method}_before after=runs/smollm2_${method}_after
step() { printf '\n[quickstart] %s\n' "$*"; }

step "1/5 demo questions -> $demo/train.jsonl, $demo/held_out.jsonl"
[ -f "$demo/held_out.jsonl" ] || python -m lf_longpo.synthesis.demo "$demo" $size --held-out 8

step "2/5 held-out score before training -> $before/results.json"
longpo evaluate longqa yaml/smollm2_longqa.yaml input="$demo/held_out.jsonl" output_dir="$before"

step "3/5 $method pairs -> runs/smollm2_$method, dataset_info/smollm2_${method}_dpo.jsonl"
longpo generate "yaml/smollm2_$method.yaml"

step "4/5 DPO, checked and trained -> $adapter"
if [ -f "$adapter/adapter_model.safetensors" ]; then
    echo "$adapter is there; remove it to train again"
else
    rm -rf "$after"  # scores of an earlier adapter
    recipe=(yaml/smollm2_dpo.yaml dataset="smollm2_${method}_dpo" output_dir="$adapter")
    longpo check "${recipe[@]}"
    longpo train "${recipe[@]}"
fi

step "5/5 held-out score after training -> $after/results.json"
longpo evaluate longqa yaml/smollm2_longqa.yaml input="$demo/held_out.jsonl" output_dir="$after" \
    model.adapter="$adapter" baseline="$before"
