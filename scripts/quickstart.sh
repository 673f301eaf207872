#!/usr/bin/env bash
# From nothing to a LoRA adapter trained on preference pairs, and its score before and after, on a CPU:
# demo questions -> pairs -> registered data set -> DPO with LLaMA-Factory -> held-out evaluation.
#
#   bash scripts/quickstart.sh                        LongMab-PO pairs (the default)
#   bash scripts/quickstart.sh --method longreward    LongReward pairs
#
# SEED=1 in the environment gives other questions and draws, in other folders. Run it again to resume; remove runs/ and
# saves/ to start over.
set -euo pipefail
cd "$(dirname "$0")/.."

method=longmab
[ "${1:-}" = --method ] && method=${2:-}
case "$#:$method" in
    0:longmab | 2:longmab) evaluation=() end=() ;;
    # The prompt of its pairs is the document and the question only. Each question costs five responses and their scores.
    2:longreward) evaluation=(prompt=plain) end=(end=6) ;;
    *) echo "usage: bash scripts/quickstart.sh [--method longmab|longreward]" >&2; exit 2 ;;
esac

bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=1

seed=${SEED:-7} suffix=${SEED:+_seed$SEED}
demo=runs/demo$suffix run=runs/smollm2_$method$suffix dataset=smollm2_${method}_dpo$suffix
adapter=saves/smollm2_${method}_dpo$suffix
before=runs/smollm2_${method}_before$suffix after=runs/smollm2_${method}_after$suffix
step() { printf '\n[quickstart, %d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

SECONDS=0
python scripts/quickstart_pace.py "$method"

step "1/5 demo questions -> $demo/train.jsonl, $demo/held_out.jsonl"
[ -f "$demo/held_out.jsonl" ] ||
    python -m lf_longpo.synthesis.demo "$demo" --train 32 --held-out 24 --people 3 3 --one-hop --seed "$seed"

step "2/5 held-out score before training -> $before/results.json"
longpo evaluate longqa yaml/smollm2_longqa.yaml input="$demo/held_out.jsonl" output_dir="$before" "${evaluation[@]}"

step "3/5 $method pairs -> $run, dataset_info/$dataset.jsonl"
longpo generate "yaml/smollm2_$method.yaml" input="$demo/train.jsonl" output_dir="$run" dataset_name="$dataset" \
    seed="$seed" "${end[@]}"

step "4/5 DPO, checked and trained -> $adapter"
if [ -f "$adapter/adapter_model.safetensors" ]; then
    echo "$adapter exists; remove it to train again"
else
    rm -rf "$after"  # scores of an earlier adapter
    recipe=(yaml/smollm2_dpo.yaml dataset="$dataset" output_dir="$adapter" seed="$seed")
    longpo check "${recipe[@]}"
    longpo train "${recipe[@]}"
fi

step "5/5 held-out score after training -> $after/results.json"
longpo evaluate longqa yaml/smollm2_longqa.yaml input="$demo/held_out.jsonl" output_dir="$after" \
    model.adapter="$adapter" baseline="$before" "${evaluation[@]}"

step "done"
longpo evaluate compare "$before" "$after"
[ "$method" = longmab ] || echo "A judge with 135M parameters is little better than chance: this run shows the steps, not a gain."
python scripts/quickstart_end.py "$demo/held_out.jsonl" "$before" "$after" "$run" "$adapter"
