"""Turns a published MuSiQue file into single-hop questions over its paragraphs, for `longpo generate` and `evaluate`.

A full multi-hop question is beyond a small model; the first step of its decomposition is not, and the paragraph that
supports it is known. Each row carries that paragraph as `support` (ignored by `longpo`), so that one can see whether
the bandit finds it (scripts/bandit_learning.py).

    python scripts/musique_single_hop.py musique_train.json questions.jsonl --limit 24
    python scripts/musique_single_hop.py musique_train.json train.jsonl --paragraphs 8 --held-out held_out.jsonl 36
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any


def single_hop(row: dict[str, Any], paragraphs: int | None = None) -> dict[str, Any]:
    """The first step of a MuSiQue question as a question of its own.

    Args:
        row: as published.
        paragraphs: how many to keep, the supporting one and others drawn by the question's id, in their order.
            Default: all.
    """
    step = row["question_decomposition"][0]
    support = next(paragraph for paragraph in row["paragraphs"] if paragraph["idx"] == step["paragraph_support_idx"])
    subject, is_relation, relation = step["question"].partition(" >> ")
    kept = row["paragraphs"]
    if paragraphs is not None:
        others = [paragraph["idx"] for paragraph in kept if paragraph is not support]
        drawn = {support["idx"], *random.Random(row["id"]).sample(others, min(paragraphs - 1, len(others)))}
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
    """Divides questions in two parts that have no paragraph in common, at least `held_out` of them in the second.

    Questions that share paragraphs, over however many others, stay together; those that share with the fewest are held
    out first.
    """
    owners: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        for paragraph in row["paragraphs"]:
            owners[paragraph["paragraph_text"]].append(number)
    group = list(range(len(rows)))
    for first, *others in owners.values():
        for other in others:
            joined, into = group[other], group[first]
            group = [into if one == joined else one for one in group]
    sizes = {one: group.count(one) for one in group}
    away: set[int] = set()
    for one in sorted(sizes, key=lambda one: (sizes[one], -one)):
        if len(away) < held_out:
            away |= {number for number, its in enumerate(group) if its == one}
    return tuple([row for number, row in enumerate(rows) if (number in away) is second] for second in (False, True))


def main() -> None:
    """Reads MuSiQue as one JSON list or as JSON lines, writes questions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("musique", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--start", type=int, default=0, help="first question (%(default)s)")
    parser.add_argument("--limit", type=int, default=None, help="how many questions (all)")
    parser.add_argument("--paragraphs", type=int, default=None, help="paragraphs a question, its own among them (all)")
    parser.add_argument(
        "--held-out",
        nargs=2,
        metavar=("FILE", "N"),
        help="write at least N questions there instead, which share no paragraph with the others",
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
