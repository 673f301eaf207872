"""Does the bandit find the evidence? Prints how often a supporting chunk is among the chosen arms, early and late.

It reads a finished LongMab-PO run over questions with their supporting text as `support` (scripts/musique_single_hop.py
writes them). An arm supports a question if its chunk has at least half of that text, or, if no chunk has half, the
largest part of it. Shares are of the rounds that were made; each has its 95% interval, a bootstrap over questions, and
the share that chunks drawn at random would have in the same rounds.

    python scripts/bandit_learning.py runs/musique questions.jsonl
"""

import argparse
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import yaml

from lf_longpo.files.journal import read_rows
from lf_longpo.files.tables import places_and_rows
from lf_longpo.models.tokenizers import load_tokenizer
from lf_longpo.text.chunking import chunk_sentences

_DRAWS = 2000


@dataclass(frozen=True)
class Round:
    """A round that was made."""

    question: int
    third: int
    hit: bool
    """Whether a supporting chunk was shown."""
    chance: float
    """That of `hit`, if the chunks are drawn at random."""
    reward: float


def supporting_arms(chunks: list[str], support: str) -> set[int]:
    """Indices of the chunks with the supporting text, or with the largest part of it."""
    held = []
    for chunk in chunks:
        match = SequenceMatcher(None, chunk, support, autojunk=False).find_longest_match()
        held.append(match.size / len(support))
    enough = min(0.5, max(held))
    return {arm for arm, share in enumerate(held) if share >= enough}


def chance_of(arms: int, supporting: int, shown: int) -> float:
    """The chance that `shown` of `arms` arms, drawn at random, have one of the supporting ones."""
    missed = 1.0
    for i in range(min(shown, arms)):
        missed *= max(arms - supporting - i, 0) / (arms - i)
    return 1.0 - missed


def rounds_of(run: Path, questions: Path) -> tuple[list[Round], float]:
    """The rounds of all questions, and the mean number of arms."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    longmab = config["longmab"]
    tokenizer = load_tokenizer(config["tokenizer"] or config["policy"]["model"], "tokenizer")
    rollouts: dict[str, list[dict]] = {}
    for row in read_rows(run / "rollouts.jsonl"):
        rollouts.setdefault(row["id"], []).append(row)
    third = max(longmab["rounds"] // 3, 1)
    found, arms = [], []
    for _, question in places_and_rows(str(questions)):
        if rows := rollouts.get(str(question["id"])):
            chunks = chunk_sentences(question["context"], tokenizer, longmab["chunk_size"], longmab["chunk_overlap"])
            wanted = supporting_arms(chunks, question["support"])
            arms.append(len(chunks))
            chance = chance_of(len(chunks), len(wanted), longmab["top_k"])
            found += [
                Round(len(arms), min(row["round"] // third, 2), bool(wanted & set(row["arms"])), chance, row["reward"])
                for row in rows
            ]
    return found, sum(arms) / len(arms)


def interval(rounds: list[Round]) -> tuple[float, float]:
    """The 95% interval of the share of hits minus their chance."""
    sums: dict[int, list[float]] = {}
    for made in rounds:
        total = sums.setdefault(made.question, [0.0, 0.0])
        total[0] += made.hit - made.chance
        total[1] += 1
    table = np.array(list(sums.values()))
    drawn = table[np.random.default_rng(0).integers(0, len(table), (_DRAWS, len(table)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    """Prints the share of rounds with a supporting chunk, and the mean reward, by third of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="output_dir of a longmab run")
    parser.add_argument("questions", type=Path, help="the run's questions, with `support`")
    options = parser.parse_args()
    found, arms = rounds_of(options.run, options.questions)
    questions = len({made.question for made in found})
    print(f"{questions} questions, {arms:.1f} arms each, {len(found)} rounds")
    for number, name in enumerate(("first", "middle", "last")):
        if part := [made for made in found if made.third == number]:
            hits = np.mean([made.hit for made in part])
            chance = np.mean([made.chance for made in part])
            low, high = interval(part)
            print(
                f"{name:>6} third: supporting chunk chosen in {hits:.3f} of {len(part)} rounds, by chance {chance:.3f} "
                f"(difference {low:+.3f} to {high:+.3f}), mean reward {np.mean([made.reward for made in part]):.4f}"
            )
    for name, values in (
        ("with", [made.reward for made in found if made.hit]),
        ("without", [made.reward for made in found if not made.hit]),
    ):
        print(f"mean reward {name} it: {sum(values) / max(len(values), 1):.4f} over {len(values)} rollouts")


if __name__ == "__main__":
    main()
