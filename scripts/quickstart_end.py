"""Prints the end of scripts/quickstart.sh: a held-out question with both answers, the results, and the next steps."""

import argparse
import json
from pathlib import Path


def rows(path: Path) -> dict[str, dict]:
    """The rows of a JSONL file by their id."""
    return {row["id"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", type=Path, help="the held-out questions")
    for name in ("before", "after", "run", "adapter"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    before, after = (rows(folder / "predictions.jsonl") for folder in (options.before, options.after))
    shown = max(before, key=lambda id: after[id]["sub_em"] - before[id]["sub_em"])
    question = rows(options.questions)[shown]
    print(
        f"""
A held-out question: {question["question"]} ({question["answer"]})
  before: {json.dumps(before[shown]["prediction"], ensure_ascii=False)}
  after:  {json.dumps(after[shown]["prediction"], ensure_ascii=False)}

Report:  {options.run}/report.html
Adapter: {options.adapter}

Try next:
  longpo view {options.run}
      look at the pairs and at the chunks that each response is based on
  longpo generate yaml/smollm2_longmab.yaml input=FILE.jsonl output_dir=runs/mine dataset_name=mine
      make pairs from your own questions (JSON lines with id, question, answer, context)
  longpo check yaml/llama3_dpo.yaml
      see what a larger model needs before you use GPUs
The command `longpo` is in .venv/bin: source .venv/bin/activate"""
    )


if __name__ == "__main__":
    main()
