"""Calls that racing saves, and how often it finds the best and the worst response of full scoring.

    python scripts/racing_study.py [RUN/scored_responses.jsonl ...]

Replays `lf_longpo.longreward.racing` on recorded scores, and on simulated judges of known kinds. In a simulation, a
response has a quality. A rating is the mean rating, plus a share of the quality, plus independent noise; it is rounded
to a whole number from 0 to 10. The probability that a statement is supported is drawn in the same way; other statements
have no or partial support. Prints a Markdown table.
"""

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from lf_longpo.longreward.pairing import best_and_worst
from lf_longpo.longreward.racing import CHECKED, RATED, next_checks
from lf_longpo.longreward.response_files import Keys

ERRORS = (0.01, 0.02, 0.05, 0.1)
STATEMENTS = 5
"""The mean number of statements of a simulated response."""


@dataclass(frozen=True)
class Response:
    """All scores of a response, and how many statements it has."""

    scores: Mapping[str, float]
    statements: int


@dataclass(frozen=True)
class Judge:
    """A simulated judge."""

    level: float
    """The mean rating."""
    spread: float
    """The standard deviation of the ratings of a question's responses."""
    shared: float
    """The share of the variance that all dimensions have in common."""
    support: float
    """The mean probability that a statement is supported."""
    support_spread: float
    """Its standard deviation over a question's responses."""


JUDGES = {
    "dimensions agree (shared variance 0.8)": Judge(6.5, 1.5, 0.8, 0.75, 0.2),
    "dimensions agree in part (0.5)": Judge(6.5, 1.5, 0.5, 0.75, 0.2),
    "dimensions are independent (0)": Judge(6.5, 1.5, 0.0, 0.75, 0.2),
    "lenient: nearly all ratings 8 or 9, support 0.93 (0.5)": Judge(8.3, 0.7, 0.5, 0.93, 0.08),
    "faithfulness spreads four times as far as ratings (0.5)": Judge(7.5, 0.8, 0.5, 0.6, 0.35),
}


def simulated(judge: Judge, questions: int, responses: int, seed: int) -> Iterator[list[Response]]:
    """Questions with the scores of all their responses."""
    rng = random.Random(seed)
    for _ in range(questions):
        difficulty = rng.gauss(0, 0.5)
        yield [_simulated(judge, difficulty, rng) for _ in range(responses)]


def _simulated(judge: Judge, difficulty: float, rng: random.Random) -> Response:
    quality = rng.gauss(0, 1)

    def drawn(mean: float, spread: float) -> float:
        own = judge.shared**0.5 * quality + (1 - judge.shared) ** 0.5 * rng.gauss(0, 1)
        return mean + spread * (difficulty + own)

    scores = {name: float(min(max(round(drawn(judge.level, judge.spread)), 0), 10)) for name in RATED}
    probability = drawn(judge.support, judge.support_spread)
    number = max(1, round(rng.gauss(STATEMENTS, 2)))
    levels = [1.0 if rng.random() < probability else rng.choice((0.0, 0.5)) for _ in range(number)]
    return Response(scores | {CHECKED: 10 * fmean(levels)}, number)


def recorded(path: Path) -> list[list[Response]]:
    """The questions of a run's scored responses that all have a reward, if there are more than two."""
    questions: dict[str, dict[str, Response]] = {}
    of_question = Keys(()).of_score
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if (id := of_question(row)) is not None:
            checks = row.get("details", {}).get(CHECKED, {}).get("details") or [None] * STATEMENTS
            scores = {name: row["scores"][name] for name in (*RATED, CHECKED)}
            questions.setdefault(id, {})[row["idx"]] = Response(scores, len(checks))
    return [list(responses.values()) for responses in questions.values() if len(responses) > 2]


class Tally:
    """Calls, and how often racing finds what full scoring finds. Responses with equal rewards count as equal."""

    def __init__(self) -> None:
        self.questions = self.calls = self.all_calls = self.best = self.worst = self.both = 0
        self.gap = self.full_gap = 0.0

    def add(self, responses: Sequence[Response], error: float) -> None:
        """Races the responses of a question."""
        known = [{name: response.scores[name] for name in RATED} for response in responses]
        while checks := next_checks(known, error):
            for i in checks:
                known[i] = dict(responses[i].scores)
        checked = [i for i, scores in enumerate(known) if CHECKED in scores]
        # One call a rating; for faithfulness, one that splits the response, and one for each statement.
        ratings = len(RATED) * len(responses)
        self.calls += ratings + sum(1 + responses[i].statements for i in checked)
        self.all_calls += ratings + sum(1 + response.statements for response in responses)
        totals = [round(sum(response.scores.values()), 9) for response in responses]
        raced = [totals[i] for i in checked]
        best, worst = max(raced) == max(totals), min(raced) == min(totals)
        self.questions += 1
        self.best, self.worst, self.both = self.best + best, self.worst + worst, self.both + (best and worst)
        self.full_gap += max(totals) - min(totals)
        picked = best_and_worst(raced)
        self.gap += raced[picked[0]] - raced[picked[1]] if picked else 0.0

    def row(self, name: str, error: float) -> str:
        """A row of the table."""
        saved, gap = 1 - self.calls / self.all_calls, self.gap / self.full_gap if self.full_gap else 1.0
        agreement = (self.best + self.worst) / 2, self.best, self.worst, self.both
        shares = " | ".join(f"{value / self.questions:.1%}" for value in agreement)
        return f"| {name} | {error} | {self.questions:,} | {saved:.1%} | {shares} | {gap:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scored", nargs="*", type=Path, help="scored_responses.jsonl of runs without racing")
    parser.add_argument("--questions", type=int, default=200, help="simulated questions for each seed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--responses", type=int, default=10, help="simulated responses for each question")
    arguments = parser.parse_args()
    print("| judge | racing_error | questions | calls saved | best and worst agree | best | worst | both | gap kept |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    sources = {f"recorded: {path}": recorded(path) for path in arguments.scored}
    for name, judge in JUDGES.items():
        seeds = range(arguments.seeds)
        sources[name] = [q for seed in seeds for q in simulated(judge, arguments.questions, arguments.responses, seed)]
    for name, questions in sources.items():
        for error in ERRORS:
            tally = Tally()
            for responses in questions:
                tally.add(responses, error)
            print(tally.row(name, error), flush=True)


if __name__ == "__main__":
    main()
