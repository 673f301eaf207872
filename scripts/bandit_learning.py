"""Does the bandit find the evidence? Prints how often a supporting chunk is among the chosen arms, early and late.

It reads a finished LongMab-PO run over questions with their supporting text as `support` (scripts/musique_single_hop.py
writes them). An arm supports a question if its chunk has at least half of that text, or, if no chunk has half, the
largest part of it.

    python scripts/bandit_learning.py runs/musique questions.jsonl
"""

import argparse
from difflib import SequenceMatcher
from pathlib import Path

import yaml

from lf_longpo.files.journal import read_rows
from lf_longpo.files.tables import places_and_rows
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.text.chunking import chunk_sentences


def supporting_arms(chunks: list[str], support: str) -> set[int]:
    """Indices of the chunks with the supporting text, or with the largest part of it."""
    held = []
    for chunk in chunks:
        match = SequenceMatcher(None, chunk, support, autojunk=False).find_longest_match()
        held.append(match.size / len(support))
    enough = min(0.5, max(held))
    return {arm for arm, share in enumerate(held) if share >= enough}


def main() -> None:
    """Prints the share of rounds with a supporting chunk, and the mean reward, by third of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="output_dir of a longmab run")
    parser.add_argument("questions", type=Path, help="the run's questions, with `support`")
    options = parser.parse_args()
    config = yaml.safe_load((options.run / "config.yaml").read_text(encoding="utf-8"))
    longmab = config["longmab"]
    tokenizer = load_tokenizer(config["tokenizer"] or config["policy"]["model"], "tokenizer")
    rollouts: dict[str, list[dict]] = {}
    for row in read_rows(options.run / "rollouts.jsonl"):
        rollouts.setdefault(row["id"], []).append(row)

    third = longmab["rounds"] // 3
    hits, rewards, rewards_with, rewards_without = ([0, 0, 0], [0.0] * 3, [], [])
    questions = arms = 0
    for _, question in places_and_rows(str(options.questions)):
        rows = rollouts.get(str(question["id"]), [])
        if len(rows) < longmab["rounds"]:
            continue
        chunks = chunk_sentences(question["context"], tokenizer, longmab["chunk_size"], longmab["chunk_overlap"])
        wanted = supporting_arms(chunks, question["support"])
        questions += 1
        arms += len(chunks)
        for row in rows:
            part = min(row["round"] // third, 2)
            hit = bool(wanted & set(row["arms"]))
            hits[part] += hit
            rewards[part] += row["reward"]
            (rewards_with if hit else rewards_without).append(row["reward"])
    lengths = [third, third, longmab["rounds"] - 2 * third]
    print(
        f"{questions} questions, {arms / questions:.1f} arms each, top_k {longmab['top_k']}, {longmab['rounds']} rounds"
    )
    for name, hit, reward, length in zip(("first", "middle", "last"), hits, rewards, lengths, strict=True):
        chosen, mean = hit / (questions * length), reward / (questions * length)
        print(f"{name:>6} third: supporting chunk chosen in {chosen:.3f} of the rounds, mean reward {mean:.4f}")
    for name, values in (("with", rewards_with), ("without", rewards_without)):
        print(f"mean reward {name} it: {sum(values) / max(len(values), 1):.4f} over {len(values)} rollouts")


if __name__ == "__main__":
    main()
