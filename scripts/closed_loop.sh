#!/usr/bin/env bash
# Does training on the pairs help, and which way to make pairs helps most? Compares the bandit, chunks drawn at random,
# whole contexts and LongReward: with a 135M model on a CPU, real questions, and the same number of model calls.
#
#   bash scripts/closed_loop.sh musique_train.json [FOLDER]      FOLDER: runs/closed_loop; SEED=42 in the environment
#
# Run it again to resume. The results are in FOLDER/table.md; docs/closed-loop.md explains them.
set -euo pipefail
cd "$(dirname "$0")/.."

musique=${1:?usage: bash scripts/closed_loop.sh musique_train.json [FOLDER]}
folder=${2:-runs/closed_loop} seed=${SEED:-42}
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=1
mkdir -p "$folder"
step() { printf '\n[closed loop, %d min] %s\n' $((SECONDS / 60)) "$*"; }

prompt=docs/closed_loop_prompt.txt
sampling() { printf '%s.sampling.temperature=0.7 %s.sampling.top_p=0.95 %s.sampling.max_new_tokens=24 ' "$1" "$1" "$1"; }

step "questions: the first step of each MuSiQue question over four paragraphs; held-out questions share none"
[ -f "$folder/held_out.jsonl" ] ||
    python scripts/musique_single_hop.py "$musique" "$folder/train.jsonl" --limit 100 --paragraphs 4 \
        --held-out "$folder/held_out.jsonl" 36

evaluate() { # name, adapter
    longpo evaluate longqa yaml/smollm2_longqa.yaml input="$folder/held_out.jsonl" output_dir="$folder/$1/evaluation" \
        prompt=$prompt samples=4 sampling.temperature=0.7 sampling.top_p=0.95 sampling.presence_penalty=0.0 \
        sampling.max_new_tokens=24 seed="$seed" \
        ${2:+model.adapter="$2"}
}
step "before training"
evaluate untrained

# Makes pairs, trains on them and evaluates. Arguments: name, generation recipe, settings of the generation.
try() {
    local name=$1 recipe=$2 adapter=$folder/$1/adapter
    shift 2
    step "$name: pairs"
    local began=$SECONDS
    longpo generate "yaml/smollm2_$recipe.yaml" input="$folder/train.jsonl" output_dir="$folder/$name/run" \
        dataset_dir="$folder/data" dataset_name="$name" seed="$seed" "$@" || [ $? -eq 1 ] # 1: too few pairs
    [ -f "$folder/$name/generation_seconds" ] || echo $((SECONDS - began)) > "$folder/$name/generation_seconds"
    [ -f "$folder/data/$name.jsonl" ] || return 0
    step "$name: training"
    if [ ! -f "$adapter/adapter_model.safetensors" ]; then
        rm -rf "$folder/$name/evaluation" # that of an earlier adapter
        began=$SECONDS
        longpo train yaml/smollm2_dpo.yaml dataset="$name" dataset_dir="$folder/data" output_dir="$adapter" seed="$seed" \
            max_steps=-1 num_train_epochs=3.0 learning_rate=1.0e-4 pref_ftx=0.5
        echo $((SECONDS - began)) > "$folder/$name/training_seconds"
    fi
    step "$name: after training"
    evaluate "$name" "$adapter"
}

rollouts=(longmab.prompt=$prompt longmab.probe_prompt=docs/closed_loop_probe.txt longmab.chunk_size=150 longmab.rounds=12
    longmab.top_k=1 $(sampling longmab))
try bandit longmab "${rollouts[@]}"
try random longmab "${rollouts[@]}" longmab.selection=random longmab.init=random
try whole longmab "${rollouts[@]}" longmab.selection=random longmab.init=random longmab.top_k=1000

# LongReward's prompt is the context and the question only, so the instructions become part of them.
[ -f "$folder/as_asked.jsonl" ] || python - "$folder" $prompt <<'PYTHON'
import json, sys
from pathlib import Path

folder, prompt = Path(sys.argv[1]), Path(sys.argv[2]).read_text().rstrip("\n")
before, behind = prompt.split("{context}\n\n")
rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
for row in rows:
    row |= {"context": before + row["context"], "question": behind.replace("{question}", row["question"])}
(folder / "as_asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
PYTHON
# Two responses and their scores take about 19 calls per question: the number of questions that the bandit's calls allow.
calls=$(python -c 'import json, sys; print(sum(s["calls"] for s in json.load(open(sys.argv[1]))["calls"].values()))' \
    "$folder/bandit/run/summary.json")
try longreward longreward input="$folder/as_asked.jsonl" end=$((calls / 19 + 1)) \
    longreward.num_samples=2 longreward.min_responses=2 $(sampling longreward)

step "results"
python scripts/closed_loop_table.py "$folder" | tee "$folder/table.md"
