"""Turns a published MuSiQue file into single-hop questions over its paragraphs, for `longpo generate` and `evaluate`.

A small model cannot answer a multi-hop question, but it can answer the first step of its decomposition, and the
paragraph that supports this step is known. Each row has that paragraph as `support` (ignored by `longpo`), which shows
whether the bandit finds it (scripts/bandit_learning.py).

    python scripts/musique_single_hop.py musique_train.json questions.jsonl --limit 24
    python scripts/musique_single_hop.py musique_train.json train.jsonl --paragraphs 8 --held-out held_out.jsonl 36
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from scipy.cluster.hierarchy import DisjointSet


def single_hop(row: dict[str, Any], paragraphs: int | None = None) -> dict[str, Any]:
    """The first step of a MuSiQue question, as a question.

    Args:
        row: the published row.
        paragraphs: how many paragraphs to keep: the supporting one and some drawn by the question's id, in their order.
            Default: all.
    """
    step = row["question_decomposition"][0]
    support = next(paragraph for paragraph in row["paragraphs"] if paragraph["idx"] == step["paragraph_support_idx"])
    subject, is_relation, relation = step["question"].partition(" >> ")
    kept = row["paragraphs"]
    if paragraphs is not None:
        distracting = [paragraph["idx"] for paragraph in kept if paragraph is not support]
        number = min(paragraphs - 1, len(distracting))
        drawn = {support["idx"], *random.Random(row["id"]).sample(distracting, number)}
        kept = [paragraph for paragraph in kept if paragraph["idx"] in drawn]
    return {
        "id": row["id"],
        # MuSiQue writes steps as questions or as "subject >> relation".
        "question": f"What is the {relation} of {subject}?" if is_relation else step["question"],
        "answer": step["answer"],
        "context": "\n\n".join(f"{paragraph['title']}\n{paragraph['paragraph_text']}" for paragraph in kept),
        "support": support["paragraph_text"],
    }


def split(rows: list[dict[str, Any]], held_out: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Divides questions into two parts that have no paragraph in common, at least `held_out` of them in the second.

    Questions that share paragraphs, directly or over other questions, stay together. The smallest groups are held out
    first; among groups of one size, those that start last.
    """
    groups = DisjointSet(range(len(rows)))
    owners: dict[str, int] = {}
    for i, row in enumerate(rows):
        for paragraph in row["paragraphs"]:
            groups.merge(owners.setdefault(paragraph["paragraph_text"], i), i)
    away: set[int] = set()
    for group in sorted(groups.subsets(), key=lambda group: (len(group), -min(group))):
        if len(away) < held_out:
            away |= group
    return tuple([row for i, row in enumerate(rows) if (i in away) is second] for second in (False, True))


def main() -> None:
    """Reads MuSiQue as a JSON list or as JSON lines, and writes questions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("musique", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--start", type=int, default=0, help="first question (%(default)s)")
    parser.add_argument("--limit", type=int, default=None, help="how many questions (all)")
    parser.add_argument(
        "--paragraphs", type=int, default=None, help="paragraphs per question, with the supporting one (all)"
    )
    parser.add_argument(
        "--held-out",
        nargs=2,
        metavar=("FILE", "N"),
        help="hold out at least N questions that share no paragraph with the rest, and write them to FILE",
    )
    options = parser.parse_args()
    text = options.musique.read_text(encoding="utf-8")
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    stop = None if options.limit is None else options.start + options.limit
    rows = rows[options.start : stop]
    parts = [(options.output, rows)]
    if options.held_out:
        file, number = options.held_out
        train, held_out = split(rows, int(number))
        parts = [(options.output, train), (Path(file), held_out)]
    for path, part in parts:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(single_hop(row, options.paragraphs)) + "\n" for row in part)
        path.write_text("".join(lines), encoding="utf-8")
        print(f"{len(part)} questions -> {path}")


if __name__ == "__main__":
    main()
