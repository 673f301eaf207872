"""The report's section about pairs: differences in reward and length, and the pairs with extreme differences."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from lf_longpo.data.pairs import question_of_pair
from lf_longpo.data.review import SIDES
from lf_longpo.errors import UserError
from lf_longpo.files.journal import Row
from lf_longpo.models.tokenizer_file import load_tokenizer_file
from lf_longpo.report.figures import Plot, histogram
from lf_longpo.report.section import Section
from lf_longpo.run_folder.contents import RunFolder
from lf_longpo.run_folder.question_records import QuestionRecords
from lf_longpo.text.chunking import count_each
from lf_longpo.text.differences import Piece, differences, unmarked_note, visible
from lf_longpo.text.fitting import CUT_MARK
from lf_longpo.text.thinking import split_thought

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The number of pairs that are shown with the largest gaps, and with the smallest gaps.
_SHOWN = 20
# The number of prompts that are tokenised, and their characters. A core tokenises about 3 million in a second.
_COUNTED, _TOKENISED = 200, 10_000_000
# The number of characters of a response and of a prompt that are shown.
_RESPONSE, _PROMPT = 6_000, 30_000


@dataclass(frozen=True, slots=True)
class PairSize:
    """What is kept in memory of each pair."""

    id: str
    question: str
    """The id of its question, which can have several pairs."""
    offset: int
    """Byte offset of the pair in its file."""
    gap: float
    """Reward of the chosen response minus the reward of the rejected response."""
    chosen: int
    """Characters of the chosen response."""
    rejected: int
    prompt: int
    """Characters of the prompt."""
    cut: bool
    """Whether the middle of its context was cut."""


@dataclass(frozen=True, slots=True)
class ShownResponse:
    """A response of a pair, for the page."""

    name: str
    reward: float
    index: int
    thought: str
    """The thought before the answer, in pairs that keep thoughts."""
    pieces: list[Piece]
    """The answer."""
    characters: int
    note: str
    """See `QuestionResponse.note`."""


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair, for the page."""

    id: str
    question: str
    answer: str
    gap: float
    prompt: str
    prompt_characters: int
    sides: tuple[ShownResponse, ShownResponse]
    unmarked: str
    """See `unmarked_note`."""


def pair_sizes(run: RunFolder) -> list[PairSize]:
    """All pairs, in the order of their file. If a question was worked on several times, its last pairs count."""
    pairs: dict[str, list[PairSize]] = {}
    for offset, row in run.pairs():
        question = question_of_pair(row) or row["id"]
        gap = float(row["chosen_reward"] - row["rejected_reward"])
        sizes = len(row["chosen"]), len(row["rejected"]), len(row["prompt"])
        if row["id"] == question:  # its first pair: earlier ones were replaced
            pairs[question] = []
        size = PairSize(row["id"], question, offset, gap, *sizes, CUT_MARK in row["prompt"])
        pairs.setdefault(question, []).append(size)
    return [pair for of_question in pairs.values() for pair in of_question]


def length_counts(pairs: Sequence[PairSize]) -> tuple[int, int, int]:
    """The number of pairs with a chosen response that is longer than, shorter than and as long as the rejected one."""
    longer = sum(pair.chosen > pair.rejected for pair in pairs)
    shorter = sum(pair.chosen < pair.rejected for pair in pairs)
    return longer, shorter, len(pairs) - longer - shorter


def pair_section(run: RunFolder, pairs: Sequence[PairSize]) -> Section:
    """The section: reward gaps, response lengths, and prompt lengths compared with the cutoff length."""
    section = Section("Pairs")
    if not pairs:
        section.notes.append("There are no pairs yet.")
        return section
    gaps = [pair.gap for pair in pairs]
    section.plots.append(
        Plot(
            histogram({"pairs": gaps}, "reward gap (chosen minus rejected)", "pairs"),
            "Pairs on the right differ most in reward and teach most. Pairs on the left hardly differ in reward.",
        )
    )
    sizes = {"chosen": [pair.chosen for pair in pairs], "rejected": [pair.rejected for pair in pairs]}
    section.plots.append(
        Plot(
            histogram(sizes, "characters of the response", "pairs"),
            "If the two colours hardly overlap, length alone separates chosen from rejected responses, and a model may "
            "learn only the length.",
        )
    )
    questions = Counter(pair.question for pair in pairs)
    if len(questions) < len(pairs):
        section.facts["questions with pairs"] = f"{len(questions):,}"
        section.facts["pairs per question"] = f"{len(pairs) / len(questions):.1f}, at most {max(questions.values()):,}"
    longer, shorter, equal = length_counts(pairs)
    section.facts["chosen response is longer"] = f"{longer:,} of {len(pairs):,}"
    section.facts["chosen response is shorter"] = f"{shorter:,} of {len(pairs):,}"
    if equal:
        section.facts["responses have the same length"] = f"{equal:,} of {len(pairs):,}"
    _prompts(run, pairs, section)
    return section


def _prompts(run: RunFolder, pairs: Sequence[PairSize], section: Section) -> None:
    cutoff = run.config.pairs.cutoff_len
    cut = sum(pair.cut for pair in pairs)
    section.facts["prompts with a cut context"] = f"{cut} of {len(pairs)}"
    try:
        tokenizer = cast("PreTrainedTokenizerBase", load_tokenizer_file(run.tokenizer_name) or run.tokenizer())
    except UserError:
        section.notes.append("The lengths of prompts are unknown, because the tokenizer cannot be loaded here.")
        return
    most = _TOKENISED * len(pairs) // max(sum(pair.prompt for pair in pairs), 1)
    step = -(-len(pairs) // max(min(_COUNTED, most), 1))
    lengths = [_tokens(run.pair_at(pair.offset), tokenizer) for pair in pairs[::step]]
    sample = f" The plot shows {len(lengths)} pairs, one of every {step}." if step > 1 else ""
    section.plots.append(
        Plot(
            histogram(
                {"pairs": lengths},
                "tokens of the prompt and the longer response",
                "pairs",
                None,
                (cutoff, "cutoff_len"),
            ),
            f"Training cuts the end of pairs to the right of the line. The chat template adds a few tokens.{sample}",
        )
    )


def _tokens(row: Row, tokenizer: "PreTrainedTokenizerBase") -> int:
    prompt, *responses = count_each([row[name] for name in ("prompt", *SIDES)], tokenizer)
    return prompt + max(responses)


def extremes(
    run: RunFolder, pairs: Sequence[PairSize], records: QuestionRecords
) -> tuple[list[ShownPair], list[ShownPair]]:
    """The pairs with the largest gaps and those with the smallest gaps; no pair is in both lists.

    Args:
        run: the run.
        pairs: its pairs.
        records: of its questions, read.
    """
    ordered = sorted(pairs, key=lambda pair: (-pair.gap, pair.id))
    largest = ordered[: min(_SHOWN, -(-len(ordered) // 2))]
    smallest = ordered[len(largest) :][-_SHOWN:][::-1]
    rows = {pair.id: run.pair_at(pair.offset) for pair in (*largest, *smallest)}
    questions = {pair.question for pair in (*largest, *smallest)}
    notes = {(id, response.index): response.note for id in questions for response in records.responses(id)}
    return [_shown(rows[pair.id], pair, notes) for pair in largest], [
        _shown(rows[pair.id], pair, notes) for pair in smallest
    ]


def _shown(row: Row, pair: PairSize, notes: Mapping[tuple[str, int], str]) -> ShownPair:
    replies = [split_thought(row[name]) for name in SIDES]
    differing = differences(*(visible(reply.answer, _RESPONSE) for reply in replies))
    chosen, rejected = (
        ShownResponse(
            name,
            row[f"{name}_reward"],
            row[f"{name}_index"],
            visible(reply.thought, _RESPONSE),
            pieces,
            len(row[name]),
            notes.get((pair.question, row[f"{name}_index"]), ""),
        )
        for name, reply, pieces in zip(SIDES, replies, differing, strict=True)
    )
    answers = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    return ShownPair(
        visible(row["id"], 200),
        visible(row["input"], _RESPONSE),
        visible(" / ".join(map(str, answers)), _RESPONSE),
        pair.gap,
        visible(row["prompt"], _PROMPT),
        len(row["prompt"]),
        (chosen, rejected),
        unmarked_note(differing),
    )
