"""Turns a published MuSiQue file into single-hop questions over all paragraphs, for `longpo generate` and `evaluate`.

A full multi-hop question is beyond a small model; the first step of its decomposition is not, and the paragraph that
supports it is known. Each row carries that paragraph as `support` (ignored by `longpo`), so that one can see whether
the bandit finds it (scripts/bandit_learning.py).

    python scripts/musique_single_hop.py musique_train.json questions.jsonl --limit 24
"""

import argparse
import json
from pathlib import Path
from typing import Any


def single_hop(row: dict[str, Any]) -> dict[str, Any]:
    """The first step of a MuSiQue question as a question of its own."""
    step = row["question_decomposition"][0]
    support = next(paragraph for paragraph in row["paragraphs"] if paragraph["idx"] == step["paragraph_support_idx"])
    subject, is_relation, relation = step["question"].partition(" >> ")
    return {
        "id": row["id"],
        # MuSiQue writes steps as questions or as "subject >> relation".
        "question": f"What is the {relation} of {subject}?" if is_relation else step["question"],
        "answer": step["answer"],
        "context": "\n\n".join(
            f"{paragraph['title']}\n{paragraph['paragraph_text']}" for paragraph in row["paragraphs"]
        ),
        "support": support["paragraph_text"],
    }


def main() -> None:
    """Reads MuSiQue as one JSON list or as JSON lines, writes questions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("musique", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--start", type=int, default=0, help="first question (%(default)s)")
    parser.add_argument("--limit", type=int, default=None, help="how many questions (all)")
    options = parser.parse_args()
    text = options.musique.read_text(encoding="utf-8")
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    stop = None if options.limit is None else options.start + options.limit
    questions = [single_hop(row) for row in rows[options.start : stop]]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("".join(json.dumps(question) + "\n" for question in questions), encoding="utf-8")
    print(f"{len(questions)} questions -> {options.output}")


if __name__ == "__main__":
    main()
