"""The pairs of a run: how far apart their two sides are, in reward and in length, and which are the extreme ones."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lf_longpo.data.review import SIDES
from lf_longpo.errors import UserError
from lf_longpo.files.journal import Row
from lf_longpo.report.figures import Plot, histogram
from lf_longpo.report.section import Section
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.text.chunking import count_each
from lf_longpo.text.differences import Piece, differences, visible
from lf_longpo.text.fitting import CUT_MARK

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Pairs shown at either end of the gaps.
_SHOWN = 20
# Pairs whose prompts are tokenised: counting all of thousands of long ones would take minutes.
_COUNTED = 200
# From this share on, a model can learn to tell the sides apart by length alone; of fewer pairs nothing is said.
_SEPARATED, _FEW = 0.75, 20
# Characters of a response and of a prompt that are shown.
_RESPONSE, _PROMPT = 6_000, 30_000


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of a pair while all are read."""

    id: str
    place: int
    gap: float
    chosen: int
    """Characters of the chosen response."""
    rejected: int
    cut: bool
    """Whether the middle of its context was left out."""


@dataclass(frozen=True, slots=True)
class Side:
    """One response of a pair, to be shown."""

    name: str
    reward: float
    index: int
    pieces: list[Piece]
    characters: int
    note: str
    """What the method knows about it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A pair, to be shown."""

    id: str
    question: str
    answer: str
    gap: float
    prompt: str
    prompt_characters: int
    sides: tuple[Side, Side]


def known_pairs(run: RunFolder) -> list[Known]:
    """All pairs, in the order of their file."""
    known: dict[str, Known] = {}
    for place, row in run.pairs():
        gap = float(row["chosen_reward"] - row["rejected_reward"])
        sizes = len(row["chosen"]), len(row["rejected"])
        known[row["id"]] = Known(row["id"], place, gap, *sizes, CUT_MARK in row["prompt"])
    return list(known.values())


def pair_section(run: RunFolder, pairs: Sequence[Known]) -> Section:
    """Gaps, lengths, and prompts against the cutoff length."""
    section = Section("Pairs")
    if not pairs:
        section.notes.append("No pair yet.")
        return section
    gaps = [pair.gap for pair in pairs]
    section.plots.append(
        Plot(
            histogram({"pairs": gaps}, "reward of the chosen response minus that of the rejected one", "pairs"),
            "Right: pairs whose sides are far apart, which teach most. Left: pairs that hardly differ.",
        )
    )
    sizes = {"chosen": [pair.chosen for pair in pairs], "rejected": [pair.rejected for pair in pairs]}
    section.plots.append(
        Plot(
            histogram(sizes, "characters of a response", "pairs"),
            "Where the colours lie apart, length alone tells chosen from rejected, and a model may learn only that.",
        )
    )
    longer = sum((pair.chosen > pair.rejected) + 0.5 * (pair.chosen == pair.rejected) for pair in pairs) / len(pairs)
    section.facts["chosen response is the longer one"] = f"{longer:.0%} of the pairs"
    separated = max(longer, 1 - longer)
    if len(pairs) >= _FEW and separated >= _SEPARATED:
        which = "longer" if longer > 0.5 else "shorter"
        section.warnings.append(
            f"In {separated:.0%} of the pairs the chosen response is the {which} one: a model can learn to write "
            f"{which} responses in place of better ones. Look at the pairs below."
        )
    _prompts(run, pairs, section)
    return section


def _prompts(run: RunFolder, pairs: Sequence[Known], section: Section) -> None:
    cutoff = run.config.pairs.cutoff_len
    cut = sum(pair.cut for pair in pairs)
    section.facts["prompts with the mark of a cut"] = f"{cut} of {len(pairs)}"
    try:
        tokenizer = run.tokenizer()
    except UserError:
        section.notes.append("Tokens of prompts are not told: the tokenizer is not to be had here.")
        return
    step = -(-len(pairs) // _COUNTED)
    lengths = [_tokens(run.pair_at(pair.place), tokenizer) for pair in pairs[::step]]
    of = f" (of {len(lengths)} pairs, every {step}th)" if step > 1 else ""
    section.plots.append(
        Plot(
            histogram(
                {"pairs": lengths}, "tokens of prompt and longer response", "pairs", None, (cutoff, "cutoff_len")
            ),
            f"What is right of the line would lose its end in training{of}. The chat template adds a few tokens.",
        )
    )


def _tokens(row: Row, tokenizer: "PreTrainedTokenizerBase") -> int:
    prompt, *responses = count_each([row[name] for name in ("prompt", *SIDES)], tokenizer)
    return prompt + max(responses)


Notes = Callable[[RunFolder, Collection[tuple[str, int]]], dict[tuple[str, int], str]]
"""Tells about responses, by question and number."""


def extremes(run: RunFolder, pairs: Sequence[Known], notes_on: Notes) -> tuple[list[Shown], list[Shown]]:
    """The pairs with the largest and the smallest gaps; none stands in both."""
    ordered = sorted(pairs, key=lambda pair: (-pair.gap, pair.id))
    largest = ordered[: min(_SHOWN, -(-len(ordered) // 2))]
    smallest = ordered[len(largest) :][-_SHOWN:][::-1]
    rows = {pair.id: run.pair_at(pair.place) for pair in (*largest, *smallest)}
    notes = notes_on(run, {(id, row[f"{name}_index"]) for id, row in rows.items() for name in SIDES})
    return [_shown(rows[pair.id], pair, notes) for pair in largest], [
        _shown(rows[pair.id], pair, notes) for pair in smallest
    ]


def _shown(row: Row, pair: Known, notes: Mapping[tuple[str, int], str]) -> Shown:
    texts = [visible(row[name], _RESPONSE) for name in SIDES]
    chosen, rejected = (
        Side(
            name,
            row[f"{name}_reward"],
            row[f"{name}_index"],
            pieces,
            len(row[name]),
            notes.get((pair.id, row[f"{name}_index"]), ""),
        )
        for name, pieces in zip(SIDES, differences(*texts), strict=True)
    )
    answers = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    return Shown(
        visible(row["id"], 200),
        visible(row["input"], _RESPONSE),
        visible(" / ".join(map(str, answers)), _RESPONSE),
        pair.gap,
        visible(row["prompt"], _PROMPT),
        len(row["prompt"]),
        (chosen, rejected),
    )
